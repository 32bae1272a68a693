/** How the pages look, light or dark as the reader's system is. */
export const STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 1480px; margin: 0 auto; padding: 0 24px 48px; }
h2 { font-size: 24px; margin: 32px 0 4px; }
h3 { font-size: 19px; margin: 32px 0 8px; border-bottom: 1px solid var(--line); }
h4 { font-size: 14px; margin: 0; max-width: 460px; }
.facts { margin: 0 0 12px; opacity: 0.75; }
.label { font-size: 14px; padding: 2px 10px; border-radius: 10px; background: var(--soft); vertical-align: middle; }
.label.improved { background: #009e7340; }
.label.cliff, .label.capture, .label.dead-role { background: #d55e0055; }
.warning { color: #d55e00; font-weight: 600; }
dl.numbers { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0; }
dl.numbers div { border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; }
dt { font-size: 13px; opacity: 0.75; }
dd { margin: 0; font-size: 22px; font-weight: 600; }
dd small { display: block; font-size: 12px; font-weight: 400; opacity: 0.75; }
.figures { display: flex; flex-wrap: wrap; gap: 24px; align-items: flex-start; }
figure { margin: 0; flex: 0 1 auto; max-width: 100%; overflow-x: auto; }
figure > svg { display: block; max-width: 100%; height: auto; }
svg text { white-space: pre; }
figcaption { font-size: 13px; opacity: 0.75; max-width: 460px; }
.legend { margin: 2px 0; font-size: 13px; max-width: 460px; }
.legend span { margin-right: 14px; white-space: nowrap; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px; }
details > summary { cursor: pointer; font-size: 13px; }
details.folded > summary { font-size: 17px; padding: 6px 0; border-top: 1px solid var(--line); }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; margin: 6px 0; }
th, td { padding: 2px 10px 2px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(odd) { background: var(--soft); }
.incidents { margin: 4px 0; padding-left: 20px; }
.episode { margin: 10px 0; }
.episode > summary { font-size: 14px; font-weight: 600; }
dl.asked { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px; margin: 6px 0 10px; }
dl.asked dd { font-size: 13px; font-weight: 400; }
.calls { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 12px; }
.call { border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; min-width: 0; }
.call p { margin: 0 0 4px; font-size: 13px; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; max-height: 320px; overflow-y: auto; }
`;
