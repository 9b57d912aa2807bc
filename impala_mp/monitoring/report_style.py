"""Style sheet of a report: follows the reader's choice of light or dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --ink: #1b1c1e; --soft: #5d6167;
  --rule: #e3e3df; --line: #2563c4; --dot: #b4500b; --level: #7a7f87;
  --error: #b3261e; --warning: #9a6700; --hint: #2563c4; --good: #1a7f37;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131518; --card: #1c1f23; --ink: #e7e8ea; --soft: #a2a8b0;
    --rule: #31363c; --line: #79adff; --dot: #f2a560; --level: #8b929b;
    --error: #ff8078; --warning: #e3b341; --hint: #79adff; --good: #57c46f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 34px 0 10px; }
p { margin: 6px 0; }
.soft, caption, th, figcaption { color: var(--soft); }
.soft { font-size: 14px; }
.top { display: flex; gap: 14px; align-items: center; flex-wrap: wrap; }
.pill {
  border: 1px solid currentColor; border-radius: 99px; padding: 1px 11px;
  font-size: 13px; font-weight: 600;
}
.good { color: var(--good); } .bad { color: var(--error); }
.bar { height: 6px; border-radius: 3px; background: var(--rule); margin: 14px 0 4px; }
.bar div { height: 100%; border-radius: 3px; background: var(--line); }
.grid { display: grid; gap: 12px; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); }
.smalls { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
.card {
  background: var(--card); border: 1px solid var(--rule); border-radius: 9px;
  padding: 12px 14px; margin: 0; min-width: 0;
}
.tile b {
  display: block; font-size: 23px; line-height: 1.3; font-weight: 650;
  font-variant-numeric: tabular-nums;
}
.name { font-size: 13px; color: var(--soft); }
.finding { border-left: 4px solid var(--hint); margin-bottom: 8px; }
.finding.error { border-left-color: var(--error); }
.finding.warning { border-left-color: var(--warning); }
.finding b { text-transform: capitalize; margin-right: 6px; }
.error b { color: var(--error); } .warning b { color: var(--warning); }
.hint b { color: var(--hint); }
.curve { min-width: 640px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; }
.small .line { stroke-width: 1.6; }
.band { fill: var(--line); opacity: 0.14; }
.dot { fill: var(--dot); stroke: var(--card); stroke-width: 1.5; }
.end { fill: var(--line); }
.whisker { stroke: var(--dot); stroke-width: 1.6; }
.rule, .axis { stroke: var(--rule); }
.level { stroke: var(--level); stroke-dasharray: 5 4; fill: none; }
.mark { stroke: var(--level); stroke-dasharray: 2 3; fill: none; }
.key { display: flex; gap: 18px; flex-wrap: wrap; font-size: 13px; margin: 0 0 6px; }
.key span::before {
  content: ""; display: inline-block; width: 16px; height: 3px; border-radius: 2px;
  margin-right: 6px; vertical-align: middle; background: var(--line);
}
.key .k-band::before { height: 10px; opacity: 0.3; }
.key .k-dot::before { width: 8px; height: 8px; border-radius: 4px;
  background: var(--dot); }
.key .k-level::before { background: none; border-top: 2px dashed var(--level);
  height: 0; border-radius: 0; }
.key .k-mark::before { width: 0; height: 13px; background: none;
  border-left: 2px dotted var(--level); border-radius: 0; }
.fit { width: fit-content; }
.smalls .card { padding: 9px 12px; }
.smalls p { display: flex; justify-content: space-between; gap: 8px; margin: 0; }
.smalls b { white-space: nowrap; font-variant-numeric: tabular-nums; font-weight: 600; }
.scroll { overflow-x: auto; }
.table { padding: 4px 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { font-weight: 500; text-align: left; white-space: nowrap; }
td, th { padding: 6px 22px 6px 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td { overflow-wrap: anywhere; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { margin: 0; overflow-x: auto; }
.film { display: block; max-width: 100%; width: 420px; border-radius: 6px;
  image-rendering: pixelated; }
@media print { body { background: none; } .card { break-inside: avoid; } }
"""
