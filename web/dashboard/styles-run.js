/** The looks of a run's page, and of its timeline. */

export const RUN = `
.run .body { display: grid; grid-template-columns: minmax(0, 1fr); gap: var(--gap); }
.back { justify-self: start; min-height: 2rem; margin-left: -0.5rem; padding: 0.2rem 0.6rem 0.2rem 0.4rem; border: 0; background: none; color: var(--quiet); }
.back:hover { color: var(--text); }
.top { justify-content: space-between; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem 0.9rem; min-width: 0; }
.title .badge { padding: 0.2rem 0.65rem 0.2rem 0.5rem; border-radius: 999px; background: color-mix(in oklab, currentColor 11%, var(--card)); }
.actions, .question { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; }
.run .body > .id { margin-top: -0.6rem; overflow-wrap: anywhere; }
.run .body > .going { display: grid; gap: 0.45rem; }
.run .body > .going p { font-size: 0.875rem; overflow-wrap: anywhere; }
.run .body > .going .progress { height: 8px; border-radius: 4px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: 0.9rem 1.25rem; }
.figures .wide { grid-column: span 2; }
dt { color: var(--quiet); font-size: 0.8125rem; }
dd { font-size: 1.0625rem; font-weight: 600; letter-spacing: -0.008em; overflow-wrap: anywhere; }
.signal { display: grid; gap: 0.75rem; border-color: var(--violet); }
.signal button { justify-self: start; }
.signal textarea { field-sizing: content; max-height: 14rem; }
.wrong.card { border-color: var(--red); }
.wrong.card h3 { color: var(--red); }
.wrong.card pre { margin-top: 0.5rem; max-height: 18rem; overflow: auto; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr); gap: var(--gap); }
.value { display: grid; grid-template-columns: minmax(0, 1fr); align-content: start; gap: 0.6rem; }
.value pre { max-height: 24rem; overflow: auto; }
.value button { justify-self: start; }

.timeline { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.7rem; padding-bottom: 1rem; }
.timeline > button { justify-self: start; }
.chart { position: relative; }
.axis { position: relative; height: 1.25rem; margin-bottom: 0.15rem; color: var(--quiet); font-size: 0.6875rem; }
.axis span { position: absolute; inset-block: 0; left: calc(var(--at) * 100%); padding-left: 0.3rem; border-left: 1px solid var(--line); white-space: nowrap; line-height: 1.2; }
.axis span.last { padding: 0 0.3rem 0 0; border-left: 0; border-right: 1px solid var(--line); transform: translateX(-100%); }
.bars li { content-visibility: auto; contain-intrinsic-size: auto 2.9rem; }
.bars li:has([aria-describedby]), .bars li:has([aria-expanded="true"]) { content-visibility: visible; }
.bars button { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0.15rem 0.75rem; width: 100%; min-height: 0; padding: 0.4rem 0; border: 0; border-radius: 6px; background: none; font-weight: 400; text-align: left; }
.bars button:hover, .bars button[aria-expanded="true"] { background: var(--hover); }
.bars button:focus-visible { outline-offset: 0; }
.bars .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars .track { grid-column: 1 / -1; grid-row: 2; }
.track { position: relative; display: block; height: 0.75rem; border-radius: 4px; background: var(--sunken); overflow: hidden; }
.outcome { display: flex; align-items: center; justify-content: end; gap: 0.6rem; font-size: 0.75rem; }
.outcome .badge { font-size: 0.75rem; font-weight: 540; }
.outcome .took { min-width: 3.6rem; color: var(--quiet); text-align: right; font-size: 0.75rem; }
.bar { --shade: var(--accent); display: block; background: var(--shade); }
.track .bar { position: absolute; inset-block: 0; left: min(calc(var(--from) / var(--length) * 100%), calc(100% - 3px)); width: max(3px, calc((var(--to) - var(--from)) / var(--length) * 100%)); border-radius: 3px; transition: left 0.25s linear, width 0.25s linear; }
[data-state="running"] > .bar, [data-state="running"] .track .bar { --shade: var(--blue); }
[data-state="running"] .track .bar { animation: breathe 1.1s ease-in-out infinite alternate; }
@keyframes breathe { to { opacity: 0.62; } }
[data-state="replayed"] > .bar, [data-state="replayed"] .track .bar { background: var(--accent-half); }
[data-state="retried"] > .bar, [data-state="retried"] .track .bar { background: linear-gradient(100deg, var(--amber) 35%, var(--accent) 35.5%); }
[data-state="failed"] > .bar, [data-state="failed"] .track .bar { --shade: var(--red); }
[data-state="cancelled"] > .bar, [data-state="cancelled"] .track .bar { background: repeating-linear-gradient(135deg, var(--strong-line) 0 3px, transparent 3px 6px); box-shadow: inset 0 0 0 1px var(--strong-line); }
:is([data-state="waiting"], [data-state="sleeping"]) > .bar, :is([data-state="waiting"], [data-state="sleeping"]) .track .bar { background: repeating-linear-gradient(90deg, color-mix(in oklab, var(--violet) 55%, var(--card)) 0 2px, color-mix(in oklab, var(--violet) 14%, var(--card)) 2px 7px); box-shadow: inset 0 0 0 1px var(--violet); }
.facts { margin: 0.3rem 0 0.6rem; padding: 0.8rem 0.9rem; border-radius: 9px; background: var(--sunken); }
.about { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.35rem; }
.about b { overflow-wrap: anywhere; }
.about p { font-size: 0.8125rem; }
.about pre { max-height: 20rem; overflow: auto; }
.about pre.error { color: var(--red); }
.tip { position: absolute; z-index: 2; top: var(--top); left: 0; right: 0; width: fit-content; max-width: min(34rem, 100%); margin: 0.2rem auto 0; padding: 0.7rem 0.9rem; border: 1px solid var(--line); border-radius: 11px; background: var(--card); box-shadow: 0 10px 34px rgb(0 0 0 / 18%); pointer-events: none; }
.tip pre { max-height: 8rem; overflow: hidden; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.1rem; color: var(--quiet); font-size: 0.75rem; }
.legend li { display: flex; align-items: center; gap: 0.45rem; }
.legend .bar { width: 1.1rem; height: 0.65rem; border-radius: 3px; }

.logs > p { margin-top: 0.5rem; }
.lines { max-height: 20rem; margin-top: 0.6rem; overflow: auto; overscroll-behavior: contain; font: 0.8125rem/1.6 var(--mono); }
.lines li { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 0 0.75rem; padding: 0.25rem 0; }
.lines li + li { border-top: 1px solid var(--line); }
.lines time { color: var(--quiet); }
.lines > li > * { align-self: start; }
.level { display: inline-flex; min-height: 1.6em; align-items: center; gap: 0.3rem; color: var(--quiet); }
[data-level="warning"] .level { color: var(--amber); }
[data-level="error"] .level { color: var(--red); }
.message { grid-column: 1 / -1; overflow-wrap: anywhere; white-space: pre-wrap; }
.message code { display: block; font: inherit; color: var(--quiet); }

@container durably (min-width: 46rem) {
  /* The marks go down behind the bars, as lines. */
  .axis { position: absolute; inset: 0 calc(11.5rem + 0.75rem) 0 calc(28% + 0.75rem); height: auto; margin: 0; pointer-events: none; }
  .bars { position: relative; padding-top: 1.35rem; }
  .bars .track { background: none; overflow: visible; }
  .bars li { contain-intrinsic-size: auto 1.9rem; }
  .bars button { grid-template-columns: 28% minmax(0, 1fr) 11.5rem; align-items: center; padding: 0.28rem 0; }
  .bars .track { grid-column: 2; grid-row: 1; height: 1.05rem; }
  .bars .outcome { grid-column: 3; justify-content: space-between; }
  .pair { grid-template-columns: repeat(2, minmax(0, 1fr)); align-items: start; }
  .pair:has(> [hidden]) { grid-template-columns: minmax(0, 1fr); }
  .card { padding: 1.25rem 1.4rem; }
  .lines li { grid-template-columns: auto 5.5rem minmax(0, 1fr); }
  .message { grid-column: 3; }
}
`
