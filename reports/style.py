"""The looks of a report page."""

CSS = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2733; background: #fff; max-width: 1180px;
       margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 2.8rem 0 .3rem; padding-top: .8rem; border-top: 2px solid #d6dde5;
     overflow-wrap: anywhere; }
h3 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
h4 { margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; color: #4a5866; }
code { font: 12px/1.35 ui-monospace, monospace; overflow-wrap: anywhere; color: #4a5866; }
a { color: #2c6fbb; }
summary { cursor: pointer; color: #2c6fbb; margin: .6rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin-bottom: 1.2rem; }
.cards div { background: #f1f5f9; border-radius: 8px; padding: .7rem 1.1rem; color: #4a5866; font-size: .9rem; }
.cards b { display: block; font-size: 1.5rem; color: #1c2733; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: #4a5866; }
th, td { padding: .22rem .9rem .22rem 0; border-bottom: 1px solid #e6ebf0; vertical-align: top;
         overflow-wrap: anywhere; }
.figures td:first-child { color: #4a5866; white-space: nowrap; }
td i { display: inline-block; height: .7em; background: #9dc0e6; margin-right: .45em; border-radius: 2px; }
.classes td:nth-child(5), .pairs td:nth-child(4) { white-space: nowrap; }
.plot { max-width: 100%; display: block; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; border: 1px solid #e0e6ec; border-radius: 8px; min-width: 0; }
figure img { max-width: 100%; border-radius: 4px; display: block; margin-bottom: .4rem; }
figcaption { font-size: .88rem; overflow-wrap: anywhere; }
.none { color: #8895a3; background: #f1f5f9; border-radius: 4px; padding: 2rem; text-align: center;
        margin-bottom: .4rem; }
.true::before { content: "true: "; color: #8895a3; }
.wrong::before { content: "predicted: "; color: #8895a3; }
.true, .wrong { font-weight: 600; }
.true { color: #1d7a46; }
.wrong { color: #b3261e; }
"""
