import sys, polars as pl
rows=[]; pairs=[]
for run in sys.argv[1:]:
    g=pl.read_ipc_stream(f"{run}/streams/gradients.arrows"); p=pl.read_ipc_stream(f"{run}/streams/gradient_pairs.arrows")
    name=run.rstrip('/').split('/')[-1]
    total=g.filter((pl.col.grouping=="role")&(pl.col.scope=="total"))
    for (role,),t in total.group_by(["role"],maintain_order=True):
        rows.append((name,role," ".join(f"{x:.3f}" for x in t["norm"]),f"{t['mass_share'].mean() or float('nan'):.2f}",f"{t['calls'].mean():.0f}",f"{t['tokens'].mean():.0f}",f"{t['zero_advantage_share'].mean():.2f}"))
    t=p.filter(pl.col.scope=="total")
    for (gr,ra,sa,ta,rb,sb,tb),c in t.group_by(["grouping","role_a","slot_a","turn_a","role_b","slot_b","turn_b"],maintain_order=True):
        if gr=="role": what=f"{ra} · {rb}"
        elif gr=="role/slot" and ra==rb: what=f"{ra} slot {sa} · slot {sb}"
        elif gr=="role/turn" and ra==rb: what=f"{ra} turn {ta} · turn {tb}"
        else: continue
        pairs.append((name,what," ".join("–" if x is None else f"{x:+.2f}" for x in c["cosine"])))
print("| run | role | gradient norm, each step | mass share | calls | response tokens | zero advantage |\n|---|---|---|---|---|---|---|")
for r in rows: print("| "+" | ".join(r)+" |")
print("\n| run | between | cosine, each step |\n|---|---|---|")
for r in pairs: print("| "+" | ".join(r)+" |")
