/** The look of a report: no font, no image, no script from anywhere. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2430; --soft: #5c6b7e; --line: #dfe4ea;
  --good: #1a7f4b; --bad: #c2332b; --busy: #2563b8; --idle: #8a97a6; --barink: #ffffff;
  --c0: #3b6fb6; --c1: #b8602a; --c2: #3a8a5c; --c3: #9a4f9e; --c4: #a38420; --c5: #2a8c97;
  --c6: #c04a6b; --c7: #6a7486; --k0: #3b6fb6; --k1: #86abdc; --k2: #b9cfec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2029; --ink: #e4e9f0; --soft: #94a3b5; --line: #2d3641;
    --good: #4cc38a; --bad: #f2746b; --busy: #6ea8f0; --idle: #6b7785; --barink: #0f1318;
    --c0: #6f9fe0; --c1: #e0935c; --c2: #62bd89; --c3: #c787cb; --c4: #d1b34e; --c5: #58bdc9;
    --c6: #ec7e9c; --c7: #9aa5b6; --k0: #6f9fe0; --k1: #4a6c9c; --k2: #33496a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 6px 14px; margin-bottom: 18px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 2px; }
h3 { font-size: 14px; margin: 18px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; color: var(--soft); font-size: 13.5px; }
code, pre, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px; }
.meta { color: var(--soft); font-size: 13px; }
.pill { border-radius: 99px; padding: 2px 11px; font-size: 13px; font-weight: 600; color: var(--card); background: var(--idle); }
.pill.completed { background: var(--good); } .pill.failed { background: var(--bad); } .pill.running { background: var(--busy); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-bottom: 16px; }
.fact, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.fact { padding: 11px 15px; } .fact b { display: block; font-size: 21px; font-weight: 650; line-height: 1.25; }
.fact span { color: var(--soft); font-size: 12.5px; }
section { padding: 18px 20px; margin-bottom: 16px; }
svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; } .scroll svg { width: auto; margin: 0 auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.tick { fill: var(--soft) !important; font-size: 11px !important; text-anchor: middle; }
.tick.end { text-anchor: end; } .lane { fill: var(--soft) !important; }
.grid { stroke: var(--line); stroke-width: 1; }
.edge { fill: none; stroke: var(--idle); stroke-width: 1.4; opacity: 0.75; }
.node rect { fill: var(--page); stroke: var(--line); stroke-width: 1.2; }
.node.failed rect { stroke: var(--bad); stroke-width: 2; } .node.running rect { stroke: var(--busy); stroke-width: 2; }
.node.skipped, .node.pending, .node.cancelled { opacity: 0.6; } .node.skipped rect { stroke-dasharray: 4 3; }
.node .name { font-weight: 600; font-size: 12.5px; } .node .what { fill: var(--soft); font-size: 11px; }
.node .mark { text-anchor: end; font-weight: 700; fill: var(--idle); }
.node.completed .mark { fill: var(--good); } .node.failed .mark { fill: var(--bad); } .node.running .mark { fill: var(--busy); }
${Array.from({ length: 8 }, (_, n) => `.c${n} { --own: var(--c${n}); }`).join(" ")}
.node .stripe { fill: var(--own); stroke: none; }
.bar { fill: var(--own); } .bar.loading { opacity: 0.45; } .bar.lost { fill: var(--idle); opacity: 0.5; }
.bar.failed { stroke: var(--bad); stroke-width: 2; } .hatch { fill: var(--card); opacity: 0.55; }
.barlabel { fill: var(--barink) !important; font-size: 11px !important; pointer-events: none; }
.curve { fill: none; stroke: var(--own); stroke-width: 2; stroke-linejoin: round; }
.curve.dashed { stroke-dasharray: 6 4; stroke-width: 1.4; } .area { fill: var(--own); opacity: 0.85; }
.dots circle { fill: var(--card); stroke: var(--own); stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: 3px 16px; font-size: 13px; color: var(--soft); margin: 8px 0 0; padding: 0; list-style: none; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; background: var(--own); margin-right: 6px; }
.passbar rect { fill: var(--k2); } .passbar.k0 rect { fill: var(--k0); } .passbar.k1 rect { fill: var(--k1); }
.passbar text { font-size: 11.5px; } .passbar.best text { font-weight: 700; }
.passbar .k { text-anchor: end; fill: var(--soft); font-weight: 400 !important; }
.share { display: flex; gap: 2px; height: 12px; border-radius: 6px; overflow: hidden; }
.share + .legend { margin: 6px 0 16px; }
.share div { min-width: 1px; } .s-running { --own: var(--good); } .s-loading { --own: var(--busy); }
.s-waiting { --own: var(--line); } .s-lost { --own: var(--bad); } .share div { background: var(--own); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 12.5px; white-space: nowrap; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; } td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.best { font-weight: 700; } .soft { color: var(--soft); } .error { color: var(--bad); } .nowrap { white-space: nowrap; }
td.evidence { font-size: 12.5px; color: var(--soft); min-width: 260px; } td.evidence b { color: var(--ink); font-weight: 500; }
td.evidence span { display: inline-block; margin-right: 12px; }
details { margin: 8px 0; } summary { cursor: pointer; font-weight: 600; font-size: 14px; }
pre { background: var(--page); border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 8px 0 0;
  overflow: auto; max-height: 420px; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: 12.5px; text-align: center; }
@media print { body { background: #fff; } section, .fact { break-inside: avoid; } }
`;
