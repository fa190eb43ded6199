"""Write outputs.safetensors: what the project computed before its modules were reordered. It was run at commit f6fe862,

    PYTHONPATH=/folder/of/f6fe862:. python tests/old_outputs/write.py

and cannot run at later commits, whose modules have other names. tests/test_old_outputs.py computes the same there."""

import importlib.util
from pathlib import Path

import torch
from models.architecture_pool import ArchitecturePool
from models.registry import ARCHITECTURES
from models.siren import SirenNets
from safetensors.torch import save_file

from models.instances import ArchitectureOnImages, run_instances
from models.prep import pack, unpack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from training.ensembles import Ensemble, SirenEnsemble
from training.losses import (
    class_id_losses,
    distillation_loss,
    interpolate_boundaries,
    parameter_scales,
    sdf_loss,
    teacher_losses,
    weight_losses,
)

FOLDER = Path(__file__).parent
spec = importlib.util.spec_from_file_location("recipe", FOLDER / "recipe.py")
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
M, B = recipe.M, recipe.B
found = {}


def note(name, values, **how):
    found[name] = recipe.summary(values, **how)


def in_float64(name, side):
    nets = ArchitectureOnImages(ARCHITECTURES[name], *recipe.SIDES[side])
    nets.trained.double()
    nets.fused.double()
    return nets, recipe.state(recipe.shapes_of(nets.trained), M, seed=side)


for side, (image_shape, classes) in recipe.SIDES.items():
    images = recipe.normal(B, *image_shape, seed=side + 1)
    for name in ARCHITECTURES:
        nets, state = in_float64(name, side)
        rows = nets.fuse(state)
        with torch.no_grad():
            note(f"{name} {side} rows", rows)
            note(f"{name} {side} logits", nets.run(rows, images), first=M * B * classes)
            nets.trained.eval()
            note(f"{name} {side} logits before fusion", run_instances(nets.trained, state, images), first=B * classes)
            if side == 8:
                nets.trained.train()
                logits = run_instances(nets.trained, state, recipe.normal(M, B, *image_shape, seed=4))
                note(f"{name} logits in training", logits, first=M * B * classes)
                running = torch.cat([state[key].flatten() for key in sorted(state) if "running" in key] or [rows[0]])
                note(f"{name} running statistics", running, first=64)

for widths in (recipe.SMALL_SIREN, recipe.PAPER_SIREN):
    nets = SirenNets(widths)
    nets.net.double()
    rows = nets.layout.flatten(recipe.state(recipe.shapes_of(nets.net), M, seed=7, gain=0.1))
    note(f"siren {widths} rows", rows)
    note(f"siren {widths} shared points", nets.run(rows, recipe.normal(20, 3, seed=8)), first=40)
    note(f"siren {widths} own points", nets.run(rows, recipe.normal(M, 20, 3, seed=9)), first=40)

for title, sizes in (("narrow", recipe.NARROW), ("wide", recipe.WIDE)):
    model = recipe.fill(PrepAutoencoder(Sizes(**sizes), 4), seed=10)
    rows = 0.1 * recipe.normal(M, 5058, seed=11)
    preps = pack(rows, sizes["prep_shape"])
    embeddings = model.encoder(preps)
    weights = recipe.normal(*embeddings.shape, seed=12)
    note(f"{title} preps", preps)
    note(f"{title} embeddings", embeddings, first=512)
    for name, values in recipe.gradients((embeddings * weights).sum(), model.encoder).items():
        found[f"{title} gradient {name}"] = values
    given = recipe.normal(M, sizes["emb_size"], seed=13)
    note(f"{title} decoded", model.decoder(given), first=2048)
    note(f"{title} class logits", model.classifier(given), first=8)
    note(f"{title} predicted", model(preps), first=64)

nets, state = in_float64("resnet8", 8)
rows = nets.fuse(state)
model = recipe.fill(PrepAutoencoder(Sizes(**recipe.NARROW)), seed=14)
images = recipe.normal(B, 1, 8, 8, seed=15)
with torch.no_grad():
    target = nets.run(rows, images)
predicted = unpack(model(pack(rows, recipe.NARROW["prep_shape"])), nets.num_parameters)
loss = distillation_loss(nets.run(predicted, images), target, 4.0)
note("step loss", loss)
for name, values in recipe.gradients(loss, model).items():
    found[f"step gradient {name}"] = values

pool = ArchitecturePool(*recipe.SIDES[8], (32, 936))
for each in pool.nets:
    each.fused.double()
class_ids = [3, 0, 2, 0, 1]
preps = torch.cat(
    [pack(pool[i].fuse(in_float64(pool.names[i], 8)[1]), (32, 936))[[n % 2]] for n, i in enumerate(class_ids)]
)
note("mixed logits", pool.run(preps, class_ids, images), first=150)

logits, others = 3 * recipe.normal(2, 4, 5, 6, seed=16)
labels = torch.tensor([0, 5, 2, 2, 1])
for temperature in (4.0, 2.0):
    note(f"distillation {temperature}", distillation_loss(logits, others, temperature))
    for alpha in (0.0, 0.9, 1.0):
        losses = teacher_losses(logits, others[0], labels, temperature, alpha)
        note(f"teacher {temperature} {alpha}", losses)
note("class ids", class_id_losses(logits[:, 0, :4], [3, 0, 1, 1]))
note("sdf", sdf_loss(logits[:, 0], others[:, 0]))
scales = parameter_scales(nets.layout, rows)
note("scales", scales)
note("weights", weight_losses(rows, rows.flip(0), scales))
note("between", interpolate_boundaries(logits[:, 0], [(0, 3), (1, 2)], 4)[0], first=24)

for title, make in (
    ("adam", lambda p: torch.optim.Adam(p, 1e-2)),
    ("sgd", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-3)),
):
    ensemble = Ensemble(nets, {name: value.clone() for name, value in in_float64("resnet8", 8)[1].items()}, make)
    for step in range(3):
        labels = torch.from_numpy(recipe.np.random.default_rng(step).integers(0, 10, (M, B)))
        losses = ensemble.step(recipe.normal(M, B, 1, 8, 8, seed=20 + step), labels)
    note(f"{title} losses", losses)
    note(f"{title} rows", ensemble.rows, first=64)
sirens = SirenNets(recipe.SMALL_SIREN)
sirens.net.double()
state = recipe.state(recipe.shapes_of(sirens.net), M, seed=7, gain=0.1)
ensemble = SirenEnsemble(sirens, state, lambda p: torch.optim.Adam(p, 1e-3))
for step in range(3):
    losses = ensemble.step(recipe.normal(M, 20, 3, seed=30 + step), recipe.normal(M, 20, seed=40 + step))
note("siren losses", losses)
note("siren rows", ensemble.rows, first=64)

save_file(found, FOLDER / "outputs.safetensors")
