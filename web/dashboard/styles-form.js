/** The looks of the form from which a job is triggered. */

export const FORM = `
.trigger form, .trigger .fields { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.1rem; }
.beside { display: grid; grid-template-columns: minmax(0, 1fr); align-items: start; gap: var(--gap); }
.field { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.3rem; }
.field > label:first-child, legend { padding: 0; font-size: 0.875rem; font-weight: 600; overflow-wrap: anywhere; }
.field .hint { font-size: 0.8125rem; }
.field .wrong { color: var(--red); font-size: 0.8125rem; font-weight: 560; }
.field [aria-invalid] { border-color: var(--red) !important; }
.field textarea { field-sizing: content; min-height: 4.5rem; max-height: 24rem; }
.field .number { max-width: 14rem; }
label.check { display: flex; align-items: center; gap: 0.6rem; font-size: 0.875rem; font-weight: 600; cursor: pointer; overflow-wrap: anywhere; }
.trigger fieldset { padding-left: 1rem; border-left: 2px solid var(--line); }
.trigger fieldset > legend { margin-bottom: 0.7rem; }
.optional { display: grid; gap: 0.5rem; }
.inner { padding-left: 1.7rem; }
/* For the eye, the box before it or its place in the list is its label. */
.inner > .field > label:first-child, .inner > fieldset > legend, .items > li > .field > label:first-child { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.items { display: grid; gap: 0.6rem; }
.items:empty { display: none; }
.items li { display: grid; grid-template-columns: minmax(0, 1fr) auto; align-items: end; gap: 0.5rem; }
.items li > button { min-height: 2.375rem; }
.fields > button { justify-self: start; }
.trigger details { border-block: 1px solid var(--line); padding: 0.6rem 0; }
.trigger details[open] { display: grid; gap: 0.9rem; }
summary { padding: 0.15rem 0; font-size: 0.875rem; font-weight: 600; cursor: pointer; }
.trigger details .field { margin-top: 0.8rem; }

@container durably (min-width: 60rem) {
  .beside { grid-template-columns: minmax(0, 38rem) minmax(0, 1fr); }
}
`
