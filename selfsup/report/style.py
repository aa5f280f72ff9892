"""The style sheet of every page: light and dark, phone to wide screen, and on paper."""

LIGHT = """
  --bg: #ffffff; --panel: #f4f5f7; --ink: #1b1d21; --soft: #555b65; --line: #d5d9df;
  --link: #0b57d0; --good: #1a7431; --mixed: #8a5a00; --bad: #b3141f; --unknown: #5a6270;
  --c0: #1a5fb4; --c1: #c01c28; --c2: #26713a; --c3: #813d9c; --c4: #9a5b00; --c5: #3d4451;
  --c6: #0a7070; --c7: #a0306a;
"""
DARK = """
  --bg: #14161a; --panel: #1e2127; --ink: #e8eaed; --soft: #abb2bd; --line: #3a404a;
  --link: #8ab4f8; --good: #5fcf80; --mixed: #f0b429; --bad: #ff8087; --unknown: #aab2bf;
  --c0: #78aeff; --c1: #ff8087; --c2: #62cf85; --c3: #d59bf0; --c4: #f0b040; --c5: #d0d5dd;
  --c6: #4fd0d0; --c7: #ff90c8;
"""
COLOURS = 8
"""Colours of lines and points, --c0 to --c7."""

LAYOUT = """
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: var(--ink); background: var(--bg) }
header, nav, main, footer { padding: 0 clamp(.8rem, 2.5vw, 2.5rem); max-width: 112rem;
  margin: 0 auto }
header { padding-top: 1.2rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .2rem 0 .8rem; overflow-wrap: anywhere }
h2 { font-size: 1.3rem; margin: 0 0 .6rem }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere }
p { max-width: 75ch; margin: .4rem 0; overflow-wrap: anywhere }
a { color: var(--link) }
.kind { color: var(--soft); margin: 0 }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: .5rem; background: var(--bg); padding: .3rem .6rem }
.verdict { display: flex; gap: 1rem; align-items: flex-start; background: var(--panel);
  border: 1px solid var(--line); border-left: .5rem solid var(--light); border-radius: .4rem;
  padding: .8rem 1rem }
.verdict svg { flex: none; width: 1.8rem }
.verdict .words { font-size: 1.25rem; font-weight: 650; color: var(--light); margin: 0 }
.verdict ul { margin: .3rem 0 0; padding-left: 1.1rem }
.verdict li { max-width: 100ch; overflow-wrap: anywhere }
.good { --light: var(--good) } .mixed { --light: var(--mixed) }
.bad { --light: var(--bad) } .unknown { --light: var(--unknown) }
nav { background: var(--bg); border-bottom: 1px solid var(--line) }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: .7rem 0;
  margin: 0 }
nav a { display: inline-block; padding: .1rem 0 }
section { padding: 1.6rem 0; border-bottom: 1px solid var(--line); scroll-margin-top: 3.4rem }
footer { padding-top: 1rem; padding-bottom: 2rem; color: var(--soft); font-size: .85rem }
.wide { display: grid; gap: 0 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)) }
.wide > *, .beside > * { min-width: 0; max-width: 100% }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: start }
.beside > :first-child { flex: 0 1 26rem }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .6rem 0; padding: 0 .8rem }
summary { cursor: pointer; padding: .5rem 0; font-weight: 600 }
pre { font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
"""

TABLES = """
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; margin: .5rem 0; font-size: .9rem }
.caption { color: var(--soft); font-size: .9rem; margin: .8rem 0 0 }
td.short { white-space: nowrap }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
td { overflow-wrap: anywhere; min-width: 4rem }
td.own { font-weight: 650 }
th button { font: inherit; font-weight: 650; color: inherit; background: none; border: 0;
  padding: 0; cursor: pointer; text-align: left }
th button::after { content: " \\2195"; color: var(--soft) }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
.legend button { text-align: left }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr);
  gap: .25rem 1.2rem; margin: .5rem 0; font-size: .95rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
"""

CHARTS = """
.charts { display: grid; gap: 1.2rem 2rem; margin: .6rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)) }
.chart, .bars { margin: 0; min-width: 0 }
.chart figcaption, .bars figcaption { font-size: .9rem; line-height: 1.4 }
.chart svg { width: 100%; height: auto; display: block; font: 13px system-ui, sans-serif }
.chart text, .map text { fill: var(--soft) }
.chart .axis { stroke: var(--line) } .chart .cursor { stroke: var(--ink); stroke-dasharray: 3 3 }
.c0 { color: var(--c0) } .c1 { color: var(--c1) } .c2 { color: var(--c2) }
.c3 { color: var(--c3) } .c4 { color: var(--c4) } .c5 { color: var(--c5) }
.c6 { color: var(--c6) } .c7 { color: var(--c7) }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .8rem; margin: .3rem 0 }
.legend > * { display: inline-flex; align-items: center; gap: .35rem; overflow-wrap: anywhere }
.legend svg { width: 2rem; height: .6rem; flex: none; overflow: visible }
.legend span span, .legend b { color: var(--ink); font-weight: 400 }
.legend button { font: inherit; background: none; border: 1px solid transparent; padding: 0 .2rem;
  cursor: pointer; border-radius: .3rem }
.legend button svg { width: .8rem; height: .8rem }
.legend button[aria-pressed=true] { border-color: currentColor }
.bars ol { list-style: none; margin: .3rem 0; padding: 0 }
.bars li { display: grid; grid-template-columns: minmax(0, 7.2rem) minmax(0, 1fr) 8.6rem;
  gap: .6rem; align-items: center; font-size: .8rem; padding: .12rem 0 }
.bars .own { font-weight: 650 }
.bars .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.bars .value { font-variant-numeric: tabular-nums; white-space: nowrap }
.bars .track { position: relative; height: 1.1rem; background: var(--panel);
  border-left: 1px solid var(--soft) }
.bars i { position: absolute; display: block }
.bars .bar { top: 0; bottom: 0; left: 0; background: var(--soft); opacity: .55 }
.bars .own .bar { background: var(--c0); opacity: 1 }
.bars .range { top: 50%; height: 0; border-top: 2px solid var(--ink) }
.bars .range::before, .bars .range::after { content: ""; position: absolute; top: -.35rem;
  height: .55rem; border-left: 2px solid var(--ink) }
.bars .range::after { right: 0 }
.mapped { display: grid; gap: .5rem 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)) }
.mapped .legend { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)) }
.map { width: 100%; max-width: 46rem; height: auto; border: 1px solid var(--line);
  border-radius: .4rem }
.map use { fill: currentColor; stroke: currentColor }
.map.chosen use { opacity: .12 } .map.chosen use.chosen { opacity: 1 }
#tip { position: fixed; z-index: 3; pointer-events: none; background: var(--ink);
  color: var(--bg); padding: .3rem .6rem; border-radius: .3rem; font-size: .8rem; max-width: 20rem;
  white-space: pre-line; overflow-wrap: anywhere }
#tip:empty { display: none }
@media (max-width: 30rem) {
  .bars li { grid-template-columns: minmax(0, 1fr) 8.6rem }
  .bars li { padding-bottom: .6rem; gap: 0 .6rem } .bars .track { grid-column: 1 / -1; grid-row: 2 }
  dl { grid-template-columns: minmax(0, 1fr) } dd { margin-bottom: .3rem }
}
"""

PICTURES = """
.grid, .row { display: flex; flex-wrap: wrap; gap: .7rem }
.row { padding: .7rem 0; border-top: 1px solid var(--line) }
figure { margin: 0; max-width: 100% }
figure img { display: block; width: 100%; image-rendering: pixelated; cursor: zoom-in }
img.smooth { image-rendering: auto }
figcaption { font: .75rem/1.35 system-ui, sans-serif; color: var(--soft); white-space: pre-line;
  overflow-wrap: anywhere }
.chart figcaption, .bars figcaption { color: var(--ink); white-space: normal }
.blank { aspect-ratio: 1; border: 1px dashed var(--soft) }
.rows { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr)) }
.rows .row { display: grid; gap: .45rem; grid-template-columns: repeat(8, minmax(0, 1fr)) }
.rows .row img, .rows .blank { aspect-ratio: 1; object-fit: contain; background: var(--panel) }
.rows.found { grid-template-columns: minmax(0, 1fr) }
.rows.found .row { grid-template-columns: repeat(auto-fill, minmax(6.6rem, 1fr)) }
.row .title { flex-basis: 100%; grid-column: 1 / -1; margin: 0; font-size: .85rem;
  font-weight: 600; overflow-wrap: anywhere }
.right img { outline: 3px solid var(--good) } .wrong img { outline: 3px dashed var(--bad) }
.same img { outline: 3px solid var(--link); margin-bottom: .35rem }
.same figcaption::first-line { color: var(--link); font-weight: 650 }
.query img { outline: 3px double var(--ink) } .unmarked img { outline: 1px solid var(--line) }
.right img, .wrong img, .query img, .unmarked img { margin-bottom: .35rem }
.right figcaption::first-line, .key .right { color: var(--good); font-weight: 650 }
.wrong figcaption::first-line, .key .wrong { color: var(--bad); font-weight: 650 }
.key { font-size: .9rem }
dialog { border: 0; padding: 1rem; background: var(--bg); color: var(--ink); max-width: 96vw;
  max-height: 96vh; border-radius: .5rem }
dialog::backdrop { background: rgb(0 0 0 / .7) }
dialog img { width: min(80vh, 88vw); max-height: 78vh; object-fit: contain; display: block;
  image-rendering: pixelated }
dialog p { font-size: .9rem; white-space: pre-line }
dialog button { font: inherit; margin-right: .5rem }
@media (max-width: 40rem) {
  .rows .row, .rows.found .row { grid-template-columns: repeat(4, minmax(0, 1fr)) }
}
@media (min-width: 60rem) { nav { position: sticky; top: 0; z-index: 2 } }
@media print {
  nav, .skip, #tip, dialog { display: none }
  body { font-size: 11px } header, main, footer { max-width: none; padding: 0 }
  section { border: 0; padding: .6rem 0 } figure, .row, tr, .verdict { break-inside: avoid }
  h2, h3 { break-after: avoid } .scroll { overflow: visible }
  .bars i, .verdict svg * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  th button::after { content: "" !important }
}
"""

STYLE = (
    f":root {{ color-scheme: light dark; {LIGHT} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}\n"
    + "".join((LAYOUT, TABLES, CHARTS, PICTURES))
)
