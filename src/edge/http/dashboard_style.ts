/**
 * The style sheet of the dashboard, sent inline. Colours are tokens; text on its ground has a contrast of
 * at least 4.5 to 1 in both schemes.
 *
 * @module
 */

/** Source of the style sheet. */
export const DASHBOARD_STYLE = `
:root{color-scheme:light dark;--ground:#f4f3ee;--card:#fffefb;--sunk:#f1efe8;--ink:#1d211c;--soft:#565d54;--line:#dedbd0;
--accent:#2c6e49;--accent-ink:#fff;--second:#8a5a12;--good:#25683f;--good-bg:#e2f1e6;--warn:#7d4e00;--warn-bg:#fbeecd;
--bad:#a32a1e;--bad-bg:#fbe4df;--still:#565d54;--still-bg:#ebe9e1;--good-dot:#3d9a62;--warn-dot:#d18a17;--bad-dot:#d4493a;
--still-dot:#9a9c92;--shadow:0 1px 2px rgb(40 40 20/.06),0 4px 14px rgb(40 40 20/.05);
--mono:ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(prefers-color-scheme:dark){:root{--ground:#10130f;--card:#181c17;--sunk:#20251f;--ink:#e8ebe3;--soft:#a3ab9e;
--line:#2d332b;--accent:#78c795;--accent-ink:#0d1a12;--second:#e0ad57;--good:#86d6a3;--good-bg:#173022;--warn:#f0c36b;
--warn-bg:#38290c;--bad:#ff9d90;--bad-bg:#401a15;--still:#b0b7ab;--still-bg:#282d26;--good-dot:#5fc284;--warn-dot:#e5a838;
--bad-dot:#f0695a;--still-dot:#6e766a;--shadow:none}}
*,*::before,*::after{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",
"DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
h1,h2,h3,p,ul,ol,dl,dd,figure{margin:0;padding:0}
ul,ol{list-style:none}
a{color:var(--accent)}
a:focus-visible,button:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:6px}
code,.mono{font-family:var(--mono);font-size:.88em;overflow-wrap:anywhere}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.wrap{max-width:1240px;margin:0 auto;padding:20px 24px 40px}
.soft{color:var(--soft)}
.phone{display:none}
.nowrap{white-space:nowrap}

.top{display:flex;align-items:center;gap:14px;margin-bottom:18px}
.mark{flex:none;width:44px;height:44px;border-radius:13px;background:var(--accent);color:var(--accent-ink);padding:8px}
.mark path{fill:none;stroke:currentColor;stroke-width:1.7;stroke-linecap:round}
.mark circle{fill:currentColor}
.names{min-width:0;flex:1}
.names h1{font-size:21px;line-height:1.25;font-weight:680;letter-spacing:-.01em;overflow-wrap:anywhere}
.names p{color:var(--soft);font-size:14px;display:flex;flex-wrap:wrap;gap:0 10px;overflow-wrap:anywhere}
#live{flex:none;display:inline-flex;align-items:center;gap:7px;border:1px solid var(--line);background:var(--card);border-radius:99px;
padding:4px 12px;font-size:13px;color:var(--soft)}
#live i{width:8px;height:8px;border-radius:50%;background:var(--still-dot)}
#live[data-state=live] i{background:var(--good-dot)}
#live[data-state=lost] i{background:var(--warn-dot)}

.card{background:var(--card);border:1px solid var(--line);border-radius:14px;box-shadow:var(--shadow);padding:16px 18px;min-width:0}
.card>h2,.head h2{font-size:15px;font-weight:650;letter-spacing:-.005em}
.head{display:flex;flex-wrap:wrap;align-items:baseline;justify-content:space-between;gap:2px 12px;margin-bottom:10px}
.head p{font-size:13px;color:var(--soft)}
.card>h2{margin-bottom:10px}
.empty{color:var(--soft);font-size:14px}

.hero{border-left:5px solid var(--good-dot);padding:18px 20px}
.hero.degraded{border-left-color:var(--warn-dot)}
.hero.failed{border-left-color:var(--bad-dot)}
.hero h2{font-size:22px;line-height:1.25;font-weight:680;letter-spacing:-.015em;display:flex;align-items:center;gap:10px}
.hero h2 svg{flex:none;width:24px;height:24px}
.hero h2 svg circle{fill:var(--good-dot)}
.hero.degraded h2 svg circle{fill:var(--warn-dot)}
.hero.failed h2 svg circle{fill:var(--bad-dot)}
.hero h2 svg path{fill:none;stroke:var(--card);stroke-width:2.2;stroke-linecap:round;stroke-linejoin:round}
.hero .lead{margin-top:3px;color:var(--soft)}
.hero .columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px 32px;margin-top:14px}
.hero h3{font-size:12px;font-weight:650;text-transform:uppercase;letter-spacing:.06em;color:var(--soft);margin-bottom:4px}
.hero li{padding-left:16px;position:relative;overflow-wrap:anywhere}
.hero li+li{margin-top:4px}
.hero li::before{content:"";position:absolute;left:2px;top:.58em;width:6px;height:6px;border-radius:50%;background:var(--still-dot)}
.hero.degraded li.why::before{background:var(--warn-dot)}
.hero.failed li.why::before{background:var(--bad-dot)}
.hero small{color:var(--soft);font-size:13px}

.tiles{display:grid;grid-template-columns:repeat(5,1fr);gap:12px;margin:14px 0}
.tile{padding:13px 16px}
.tile dt{font-size:13px;color:var(--soft)}
.tile .value{font-size:24px;line-height:1.25;font-weight:650;letter-spacing:-.02em;margin-top:1px}
.tile .value small{font-size:14px;font-weight:500;letter-spacing:0;color:var(--soft)}
.tile .note{font-size:13px;line-height:1.4;color:var(--soft);margin-top:2px}

.grid{display:grid;grid-template-columns:minmax(0,1fr) 372px;gap:14px;align-items:start}
.col{display:grid;gap:14px;min-width:0}

.badge{display:inline-flex;align-items:center;gap:6px;border-radius:99px;padding:1px 9px 1px 8px;font-size:13px;font-weight:560;
white-space:nowrap;background:var(--still-bg);color:var(--still)}
.badge::before{content:"";width:7px;height:7px;border-radius:50%;background:var(--still-dot)}
.badge.good{background:var(--good-bg);color:var(--good)}.badge.good::before{background:var(--good-dot)}
.badge.warn{background:var(--warn-bg);color:var(--warn)}.badge.warn::before{background:var(--warn-dot);border-radius:2px;transform:rotate(45deg)}
.badge.bad{background:var(--bad-bg);color:var(--bad)}.badge.bad::before{background:var(--bad-dot);border-radius:1px}
.tag{display:inline-block;border:1px solid var(--line);border-radius:6px;padding:0 6px;font-size:12px;color:var(--soft);white-space:nowrap}

table{width:100%;border-collapse:collapse;font-size:14px}
th{font-size:12px;font-weight:600;color:var(--soft);text-align:left;padding:0 10px 6px 0;white-space:nowrap}
td{border-top:1px solid var(--line);padding:9px 10px 9px 0;vertical-align:top}
th:last-child,td:last-child{padding-right:0}
td.end,th.end{text-align:right;padding-right:22px}
td .sub{display:block;font-size:12.5px;line-height:1.4;color:var(--soft)}
td b{font-weight:620;overflow-wrap:anywhere}
tr.faded td{color:var(--soft)}
caption{text-align:left}

.pending{border-color:var(--warn-dot);margin-top:14px}
.pending li+li{margin-top:14px;padding-top:14px;border-top:1px solid var(--line)}
.command{display:flex;align-items:center;gap:8px;margin-top:8px;background:var(--sunk);border-radius:9px;padding:7px 8px 7px 12px;min-width:0}
.command code{flex:1;min-width:0;user-select:all}
button{display:none;font:inherit;font-size:13px;color:var(--ink);background:var(--card);border:1px solid var(--line);border-radius:7px;
padding:3px 11px;min-height:32px;cursor:pointer}
button:hover{border-color:var(--soft)}
.js button{display:inline-block}

.steps{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:12px 0}
.steps li{position:relative;padding:17px 10px 0 0;font-size:13.5px;line-height:1.35}
.steps li::before{content:"";position:absolute;left:0;right:0;top:5px;height:2px;background:var(--good-dot)}
.steps li:last-child::before{right:auto;width:12px}
.steps li::after{content:"";position:absolute;left:0;top:0;width:12px;height:12px;border-radius:50%;background:var(--good-dot);
border:2px solid var(--card)}
.steps li.now::after{background:var(--warn-dot);box-shadow:0 0 0 3px var(--warn-bg)}
.steps li.isolated::after{background:var(--bad-dot);box-shadow:0 0 0 3px var(--bad-bg)}
.steps small{display:block;color:var(--soft);font-size:12.5px}
.trouble{margin-top:16px;border-top:1px solid var(--line);padding-top:12px}
.trouble h3{font-size:13px;font-weight:650;margin-bottom:6px}
.trouble li{overflow-wrap:anywhere;font-size:14px}
.trouble li+li{margin-top:12px}
.trouble .cure{color:var(--ink);background:var(--sunk);border-radius:8px;padding:5px 10px;margin-top:4px}
.trouble .cure b{color:var(--accent);font-weight:650}

.plots{display:grid;gap:16px}
figure figcaption{display:flex;justify-content:space-between;align-items:baseline;gap:10px;font-size:14px}
figure .value{font-weight:650;display:flex;flex-wrap:wrap;justify-content:flex-end;gap:0 12px}
.plot{display:block;width:100%;height:64px;margin-top:4px}
.plot .rule{stroke:var(--line);stroke-dasharray:2 4;vector-effect:non-scaling-stroke;fill:none}
.plot .base{stroke:var(--line);vector-effect:non-scaling-stroke;fill:none}
.line{fill:none;stroke:var(--accent);stroke-width:1.7;stroke-linejoin:round;vector-effect:non-scaling-stroke}
.area{fill:var(--accent);opacity:.13}
.line.second{stroke:var(--second);stroke-dasharray:4 2.5}.area.second{fill:var(--second);opacity:.1}
.axis{display:flex;justify-content:space-between;font-size:12px;color:var(--soft);margin-top:2px}
.key{display:inline-block;width:16px;height:0;border-top:2.5px solid var(--accent);vertical-align:middle;margin-right:5px}
.key.second{border-top:2.5px dashed var(--second)}

.web{display:block;width:100%;max-width:420px;height:auto;margin:0 auto}
.thread{fill:none;stroke:var(--good-dot);stroke-width:1.8;opacity:.75;stroke-linecap:round}
.thread.suspect{stroke:var(--warn-dot);stroke-dasharray:6 5}
.thread.dead{stroke:var(--bad-dot);stroke-dasharray:1 6;opacity:.9}
.thread.none{stroke:var(--still-dot);stroke-dasharray:1 6;opacity:.6}
.spore{fill:var(--still-dot);opacity:.6}
.dot circle{fill:var(--good-dot);stroke:var(--card);stroke-width:2.5}
.dot.suspect circle{fill:var(--warn-dot)}
.dot.dead circle{fill:var(--card);stroke:var(--bad-dot);stroke-width:2}
.dot.self circle{fill:var(--accent)}
.dot.self .halo{fill:var(--accent);opacity:.16;stroke:none}
.dot text{font-size:11.5px;fill:var(--soft)}
.dot.self text{fill:var(--ink);font-weight:650;font-size:12.5px}

.rows li{display:flex;justify-content:space-between;gap:12px;padding:7px 0;border-top:1px solid var(--line);font-size:14px;min-width:0}
.rows li:first-child{border-top:0;padding-top:0}
.rows li:last-child{padding-bottom:0}
.rows .grow{min-width:0;overflow-wrap:anywhere}
.rows small{display:block;color:var(--soft);font-size:12.5px;line-height:1.4}
.events li{display:grid;grid-template-columns:74px 66px minmax(0,1fr);gap:0 10px;padding:7px 0;border-top:1px solid var(--line);font-size:14px;
align-items:start}
.events li:first-child{border-top:0;padding-top:0}
.events p{overflow-wrap:anywhere}
.events time{color:var(--soft);font-size:13px;white-space:nowrap}
.facts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:0 28px;font-size:14px}
.facts>div{display:grid;grid-template-columns:104px minmax(0,1fr);gap:14px;padding:6px 0;border-top:1px solid var(--line)}
.facts>div.whole{grid-column:1/-1}
.facts>div:first-child{border-top:0;padding-top:0}
.facts dt{color:var(--soft)}
.facts dd{overflow-wrap:anywhere}
details{margin-top:12px;font-size:14px}
summary{cursor:pointer;color:var(--accent);min-height:24px;width:max-content;max-width:100%}
details[open] summary{margin-bottom:10px}
.foot{margin-top:22px;color:var(--soft);font-size:13px;display:flex;flex-wrap:wrap;gap:4px 16px}

@media(max-width:1020px){.grid{grid-template-columns:minmax(0,1fr)}.tiles{grid-template-columns:repeat(3,1fr)}
.col{display:contents}.o1{order:1}.o2{order:2}.o3{order:3}.o4{order:4}.o5{order:5}.o6{order:6}.o7{order:7}.o8{order:8}.o9{order:9}
.o10{order:10}}
@media(max-width:640px){.facts{grid-template-columns:minmax(0,1fr)}body{font-size:15px}.wrap{padding:14px 14px 32px}.card{padding:15px}.hero{padding:16px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:10px}.tile{padding:11px 14px}.tile:first-child{grid-column:span 2}
.names h1{font-size:19px}.top{gap:11px}.mark{width:40px;height:40px}
table.stack,table.stack tbody,table.stack tr,table.stack td{display:block}
table.stack thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table.stack tr{border-top:1px solid var(--line);padding:11px 0;display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:5px 12px}
table.stack tbody tr:first-child{border-top:0;padding-top:0}
table.stack tbody tr:last-child{padding-bottom:0}
table.stack td{border:0;padding:0;min-width:0;text-align:left}
table.stack td.first{grid-column:1/3;align-self:start}
table.stack td.state{justify-self:end;text-align:right}
table.stack td.end{padding:0}
table.stack .hide,table.stack .hide-phone{display:none}
.phone{display:inline}
table.stack td.wide{grid-column:1/-1}
table.stack td.pair{grid-column:span 2}
table.stack td[data-label]::before{content:attr(data-label);display:block;font-size:12px;color:var(--soft)}
.steps{display:block}.steps li{padding:0 0 12px 24px;display:flex;justify-content:space-between;gap:10px}
.steps li::before{left:5px;right:auto;width:2px;top:6px;height:100%}.steps li:last-child::before{display:none}.steps li:last-child{padding-bottom:0}
.steps li::after{top:4px}.steps small{white-space:nowrap}
.events li{grid-template-columns:auto 1fr;gap:2px 10px}.events p{grid-column:1/-1}.events li .badge{justify-self:end}
summary{min-height:32px;line-height:32px}button{min-height:40px}}
@media print{.card{box-shadow:none;break-inside:avoid}#live,button{display:none!important}}
@media(prefers-reduced-motion:no-preference){#live[data-state=live] i{animation:breathe 2.4s ease-in-out infinite}
@keyframes breathe{50%{opacity:.45}}}
`;
