"""The meta step against golden numbers."""

import numpy as np
import oracle
import pytest


def check(path, method, dtype, tolerance, eager):
    arrays = dict(np.load(path))
    model = oracle.build(arrays, dtype, normalise=method == "mwnet_normalised")
    model.run_eagerly = eager
    data = oracle.pair(arrays, dtype)
    found = oracle.stages(model, data, arrays)
    model.make_train_function()
    model.train_function(iter([data]))
    found |= oracle.after(model, found, arrays)
    expected = {k[len(method) + 1 :]: v for k, v in arrays.items() if k.startswith(method + "/")}
    print(method, {k: v.shape for k,v in expected.items() if k not in found})
    worst = {k: np.max(np.abs(found[k] - v)) for k, v in expected.items() if k in found}
    return worst, expected, found
for f in ["step_seed0","step_seed0_bn","step_seed1","step_seed1_bn"]:
    for m in ["mwnet","mwnet_normalised"]:
        w,e,fd=check(f"../shared/oracles/{f}.npz",m,"float64",1e-9,False)
        print(f,m,max(w,key=w.get),max(w.values()))
        if max(w.values())>1e-6: print(w, e["weight"], fd["weight"])
print({k: float("%.2g"%v) for k,v in w.items()})
m=oracle.build(dict(np.load("../shared/oracles/step_seed1_bn.npz")),"float64",True)
print([ (v.dtype, v.path) for v in m.method.weight_net.variables], m.optimizer.learning_rate)
a=dict(np.load("../shared/oracles/step_seed1_bn.npz"))
h=np.maximum(a["mwnet/loss"][:,None]@a["theta/v1"]+a["theta/c1"],0)@a["theta/v2"]+a["theta/c2"]
print("np err", np.abs(1/(1+np.exp(-h))[:,0]-a["mwnet/weight"]).max(), fd["weight"].dtype)
