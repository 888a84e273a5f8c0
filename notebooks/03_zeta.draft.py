"""Run the code cells of a source file in one namespace, pictures to PNG files; an argument stops after cell n."""
import sys, os, time
import matplotlib; matplotlib.use("Agg")
src, folder = sys.argv[1:3]; os.makedirs(folder, exist_ok=True)
only = set(map(int, sys.argv[3].split(","))) if len(sys.argv) > 3 else None
from mixlab.course import pictures
count = [0, 0]
def show(fig, alt):
    count[1] += 1; fig.savefig(f"{folder}/{count[0]:02}_{count[1]}.png", dpi=110); import matplotlib.pyplot as plt; plt.close(fig)
def frames(draw, settings, alt):
    import io; from PIL import Image as P
    ps = [P.open(io.BytesIO(pictures._png(draw(**v)))).convert("RGB") for v in settings]
    w = P.new("RGB", (sum(p.width for p in ps), max(p.height for p in ps)), "white"); x = 0
    for p in ps: w.paste(p, (x, 0)); x += p.width
    count[1] += 1; w.save(f"{folder}/{count[0]:02}_{count[1]}.png")
pictures.show, pictures.frames = show, frames
pictures.slider = lambda draw, **k: None
ns = {"__name__": "__main__"}
cells, kind, buf = [], None, []
for line in open(src, encoding="utf-8").read().split("\n") + ["#md"]:
    if line.strip() in ("#md", "#code"):
        if kind: cells.append((kind, "\n".join(buf)))
        kind, buf = line.strip()[1:], []
    else: buf.append(line)
for i, (kind, text) in enumerate(cells):
    if kind != "code" or (only and i not in only): continue
    count[0] = i; t = time.process_time()
    import linecache
    name = f"<cell {i}>"; linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    try: exec(compile(text, name, "exec"), ns)
    except AssertionError as e:
        import traceback; print("ASSERT FAILED", i, e); traceback.print_exc(limit=-1)
    print(f"--- cell {i}: {time.process_time() - t:.1f} s")
