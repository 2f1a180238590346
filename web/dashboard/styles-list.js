/** The list's looks: a card a run where it is narrow, a line a run where there is room. */

export const LIST = `
.filters { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem; }
.statuses { display: flex; gap: 0.15rem; padding: 3px; border-radius: 11px; background: light-dark(#efede7, #1b201f); overflow-x: auto; scrollbar-width: none; }
.statuses button { flex: 1 0 auto; min-height: 2rem; padding: 0.2rem 0.7rem; border: 0; border-radius: 8px; background: none; color: var(--quiet); font-size: 0.8125rem; }
.statuses button:hover { color: var(--text); }
.statuses button[aria-pressed="true"] { background: light-dark(#ffffff, #2d3432); color: var(--text); box-shadow: 0 1px 2px rgb(0 0 0 / 12%); }
.statuses button:focus-visible { outline-offset: -2px; }

.table { border: 1px solid var(--line); border-radius: 14px; background: var(--card); box-shadow: var(--shadow); overflow: clip; }
.head { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.rows .row { position: relative; display: grid; grid-template-columns: minmax(0, 1fr) auto; grid-template-areas: "job state" "going going" "labels labels" "when took"; align-items: center; gap: 0.4rem 0.75rem; padding: 0.8rem 1rem; transition: background-color 0.15s; }
.rows .row + .row { border-top: 1px solid var(--line); }
.rows .row:hover { background: var(--hover); }
.rows .row:focus-within:has(:focus-visible) { outline: 2px solid var(--accent); outline-offset: -2px; border-radius: 13px; }
.state { grid-area: state; justify-self: end; }
.job { grid-area: job; display: grid; grid-template-columns: minmax(0, 1fr); min-width: 0; }
.row .labels { grid-area: labels; }
.row .labels:empty { display: none; }
.row .going { grid-area: going; display: grid; gap: 0.3rem; min-width: 0; font-size: 0.8125rem; }
.when { grid-area: when; font-size: 0.8125rem; }
.took { grid-area: took; justify-self: end; font-size: 0.8125rem; white-space: nowrap; }
.note { min-width: 0; color: var(--quiet); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.note:empty { display: none; }
[data-state="failed"] .note { color: var(--red); }
button.open { display: block; min-height: 0; padding: 0; border: 0; background: none; font-weight: 600; text-align: left; }
button.open:hover { background: none; }
button.open span { display: block; margin: -0.15rem -0.2rem; padding: 0.15rem 0.2rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
button.open:focus-visible { outline: none; }
/* The whole row opens the run, and is one button to whoever uses the keyboard. */
button.open::after { content: ""; position: absolute; inset: 0; cursor: pointer; }
.row .id { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 0.75rem; }
.pages { display: flex; align-items: center; gap: 0.5rem; }
.said { margin-right: auto; font-size: 0.8125rem; }

@container durably (max-width: 59.99rem) {
  .going:has(> .progress[hidden]):has(> .note:empty) { display: none; }
}
@container durably (min-width: 46rem) and (max-width: 59.99rem) {
  .rows .row { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr) 7.5rem; grid-template-areas: "job going state" "labels when took"; gap: 0.45rem 1.5rem; padding: 0.8rem 1.15rem; }
}
@container durably (min-width: 46rem) {
  .filters { grid-template-columns: minmax(0, 1fr) minmax(9rem, 14rem); }
  .statuses { grid-column: 1 / -1; justify-self: start; }
}
@container durably (min-width: 60rem) {
  .filters { grid-template-columns: minmax(12rem, 1fr) minmax(9rem, 13rem) auto; }
  .statuses { grid-column: auto; justify-self: auto; }
  .head { position: static; width: auto; height: auto; clip-path: none; overflow: visible; }
  .row, .rows .row { display: grid; grid-template-columns: 7.25rem minmax(0, 1.35fr) minmax(0, 1.1fr) minmax(0, 1.5fr) 9rem 5.5rem; grid-template-areas: "state job labels going when took"; gap: 0.75rem 1.25rem; padding: 0.7rem 1.25rem; }
  .head .row { padding-block: 0.6rem; border-bottom: 1px solid var(--line); grid-template-areas: none; color: var(--quiet); font-size: 0.75rem; font-weight: 560; }
  .head .row > :last-child { justify-self: end; }
  .state { justify-self: start; }
  .row .labels { max-height: 3.2rem; overflow: hidden; }
  .row .chip { max-width: 8.75rem; }
  .row .labels:empty { display: flex; }
  .rows .row { min-height: 3.75rem; }
}
`
