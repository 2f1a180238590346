/** How the dashboard looks: colours, type, buttons, and what all pages share. One sheet a part, adopted by the element. */

import { FORM } from "./styles-form.js"
import { LIST } from "./styles-list.js"
import { RUN } from "./styles-run.js"

// Each colour is a pair, for light and dark, and as text has a contrast of 4.5 at least on the ground it stands on.
const BASE = `
:host {
  color-scheme: light dark;
  display: block;
  container: durably / inline-size;
  --page: light-dark(#fbfaf8, #101312);
  --card: light-dark(#ffffff, #181c1b);
  --sunken: light-dark(#f5f4f0, #131716);
  --hover: light-dark(#f3f6f4, #1d2321);
  --text: light-dark(#1b201e, #e9ece9);
  --quiet: light-dark(#59625e, #a0aaa5);
  --line: light-dark(#e5e3dd, #2a302e);
  --strong-line: light-dark(#8b938f, #6b7571);
  --accent: var(--durably-accent, light-dark(#0f6b5c, #67c9b4));
  --on-accent: light-dark(#ffffff, #08211c);
  --accent-soft: color-mix(in oklab, var(--accent) 13%, var(--card));
  --accent-half: color-mix(in oklab, var(--accent) 42%, var(--card));
  --blue: light-dark(#2458b8, #8db4ff);
  --amber: light-dark(#865600, #e8b95b);
  --red: light-dark(#b3261e, #ff958b);
  --violet: light-dark(#6a48b0, #bfa6ff);
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Segoe UI Mono", Menlo, "DejaVu Sans Mono", monospace;
  --gap: 1rem;
  --shadow: light-dark(0 1px 2px rgb(27 32 30 / 4%), 0 0 0 transparent), light-dark(0 6px 24px rgb(27 32 30 / 5%), 0 0 0 transparent);
  background: var(--page);
  color: var(--text);
  font: 400 0.9375rem/1.5 var(--durably-font, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif);
  font-variant-numeric: tabular-nums;
  -webkit-text-size-adjust: 100%;
}
:host([hidden]), [hidden] { display: none !important; }
*, *::before, *::after { box-sizing: border-box; }
h1, h2, h3, p, dl, dd, ol, ul, pre, fieldset { margin: 0; padding: 0; }
ol, ul { list-style: none; }
fieldset { border: 0; min-width: 0; }
h2 { font-size: 1.5rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.018em; overflow-wrap: anywhere; }
h2:focus { outline: none; }
h3 { font-size: 0.875rem; line-height: 1.4; font-weight: 640; }
.quiet { color: var(--quiet); }
.line > .quiet { font-size: 0.8125rem; }
.mono { font-family: var(--mono); font-size: 0.8125rem; }
.line { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem 0.75rem; }
.icon { flex: none; width: 1em; height: 1em; fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 6px; }

.dashboard { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.25rem; max-width: 84rem; margin: 0 auto; padding: 1.25rem 1rem 1.5rem; }
.brand { justify-content: space-between; min-height: 2.5rem; }
h1 { display: flex; align-items: center; gap: 0.55rem; font-size: 1.0625rem; font-weight: 660; letter-spacing: -0.01em; }
.mark { display: grid; grid-auto-flow: column; gap: 3px; padding: 5px 6px; border-radius: 7px; background: var(--accent); }
.mark i { width: 3px; height: 12px; border-radius: 2px; background: var(--on-accent); }
.mark i:last-child { opacity: 0.5; }
.view { display: grid; grid-template-columns: minmax(0, 1fr); gap: var(--gap); animation: arrive 0.22s ease-out; }
@keyframes arrive { from { opacity: 0; transform: translateY(6px); } }
.card { padding: 1.1rem 1.15rem; border: 1px solid var(--line); border-radius: 14px; background: var(--card); box-shadow: var(--shadow); }

button, select, input, textarea { font: inherit; color: inherit; letter-spacing: inherit; }
button, select, input:not([type="checkbox"]), textarea { min-height: 2.375rem; border: 1px solid var(--strong-line); border-radius: 9px; background: var(--card); }
button { display: inline-flex; align-items: center; justify-content: center; gap: 0.45rem; padding: 0.4rem 0.9rem; font-weight: 560; line-height: 1.3; cursor: pointer; transition: background-color 0.15s, border-color 0.15s, color 0.15s; }
button:hover { background: var(--hover); }
button:disabled { cursor: default; opacity: 0.45; }
button.primary { border-color: var(--accent); background: var(--accent); color: var(--on-accent); }
button.primary:hover { background: color-mix(in oklab, var(--accent) 86%, var(--text)); }
button.danger { border-color: var(--red); color: var(--red); }
button.danger:hover { background: color-mix(in oklab, var(--red) 10%, var(--card)); }
button.small { min-height: 1.875rem; padding: 0.2rem 0.65rem; font-size: 0.8125rem; }
button.plain { min-height: 1.75rem; padding: 0.3rem; border: 0; background: none; }
input:not([type="checkbox"]), textarea, select { width: 100%; padding: 0.4rem 0.7rem; }
select { padding-right: 0.4rem; cursor: pointer; }
input[type="checkbox"] { flex: none; width: 1.1rem; height: 1.1rem; margin: 0; accent-color: var(--accent); }
::placeholder { color: var(--quiet); opacity: 1; }
pre { font: 0.8125rem/1.6 var(--mono); white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 2; }

.badge { display: inline-flex; align-items: center; gap: 0.4rem; color: var(--quiet); font-size: 0.8125rem; font-weight: 600; white-space: nowrap; }
.badge[data-state="running"] { color: var(--blue); }
.badge[data-state="running"] .icon { animation: turn 1.1s linear infinite; }
@keyframes turn { to { transform: rotate(1turn); } }
.badge:is([data-state="completed"], [data-state="retried"], [data-state="replayed"]) { color: var(--accent); }
.badge:is([data-state="waiting"], [data-state="sleeping"]) { color: var(--violet); }
.badge[data-state="failed"] { color: var(--red); }

.progress { position: relative; height: 6px; border-radius: 3px; background: color-mix(in oklab, var(--blue) 16%, var(--card)); overflow: hidden; }
.progress i { display: block; width: calc(var(--share) * 100%); min-width: 3px; height: 100%; border-radius: inherit; background: var(--blue); transition: width 0.25s ease-out; }
.progress.endless i { width: 30%; animation: slide 1.5s ease-in-out infinite alternate; }
@keyframes slide { to { transform: translateX(233%); } }
.labels { display: flex; flex-wrap: wrap; gap: 0.3rem; min-width: 0; }
.chip { display: inline-flex; gap: 0.35rem; max-width: 100%; padding: 0.05rem 0.5rem; border: 1px solid var(--line); border-radius: 6px; background: var(--sunken); font-size: 0.75rem; line-height: 1.5; }
.chip > * { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.chip b { flex: none; max-width: 8rem; font-weight: 500; color: var(--quiet); }

.storage { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 0.75rem 1.5rem; padding-top: 1.1rem; border-top: 1px solid var(--line); font-size: 0.8125rem; }
.storage > div { display: grid; grid-template-columns: minmax(0, auto); gap: 0.3rem; min-width: min(100%, 19rem); }
.storage .progress { height: 4px; background: var(--line); }
.storage .progress i { background: var(--accent); }
.storage[data-state="wrong"] .quiet { color: var(--red); font-weight: 600; }
.storage button { font-size: 0.8125rem; min-height: 2.125rem; }
.live { position: sticky; bottom: 1rem; z-index: 3; display: grid; justify-items: center; pointer-events: none; }
.notice { display: flex; align-items: center; gap: 0.6rem; max-width: 100%; padding: 0.5rem 0.5rem 0.5rem 1rem; border-radius: 12px; background: var(--text); color: var(--page); font-weight: 540; overflow-wrap: anywhere; pointer-events: auto; box-shadow: 0 8px 30px rgb(0 0 0 / 22%); animation: arrive 0.2s ease-out; }
.notice button { color: inherit; }
.notice button:hover { background: color-mix(in oklab, var(--page) 18%, var(--text)); }
.notice.wrong { background: light-dark(#8f1d17, #ffb4ac); color: light-dark(#ffffff, #3b0906); }
.empty { display: grid; justify-items: center; gap: 1rem; padding: 3.5rem 1rem; border: 1px dashed var(--line); border-radius: 14px; color: var(--quiet); text-align: center; }

@container durably (min-width: 46rem) {
  .dashboard { gap: 1.5rem; padding: 1.75rem 2rem 2rem; }
  h2 { font-size: 1.75rem; }
}
@media (prefers-reduced-motion: reduce) {
  *, *::before, *::after { animation: none !important; transition: none !important; }
}
@media (forced-colors: active) {
  .progress, .progress i, .bar, .mark, .mark i { forced-color-adjust: none; }
}
`

/** Made once, whatever the number of elements. */
export const styles = [BASE, LIST, RUN, FORM].map((text) => {
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(text)
  return sheet
})
