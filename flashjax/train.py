"""Training, read from top to bottom: flow matching for teachers, DMD for few-step students.

``flashjax train --config=FILE --workdir=DIR``; started again with the same arguments it goes on from the newest
checkpoint, bit for bit as if it had not stopped.
"""

import contextlib
import json
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from flashjax import cost, models, optim, pictures, roles, settings, workdir
from flashjax.checkpoint import Checkpoints, flat
from flashjax.clock import Clock, Profile, Speed
from flashjax.data import said
from flashjax.data.loader import make_loader
from flashjax.data.mixture import Mixture, open_sources
from flashjax.distill import schedule
from flashjax.distill.state import TrainState
from flashjax.errors import about_settings
from flashjax.evaluate import watch
from flashjax.metrics import MetricsWriter
from flashjax.models import held, lora, text
from flashjax.parallel import hosts, memory, sharding, stopping
from flashjax.parallel import mesh as meshes
from flashjax.parallel.watchdog import Watchdog
from flashjax.programs import compile_programs, run_row, step_call
from flashjax.recipe import describe, make_recipe, make_table, teacher_names, updates
from flashjax.weights import begun_from, check_there, frozen_forms, load_decoder


def note(line: str) -> None:
    """The log tells the story of the run, once for all processes; in color where somebody is looking."""
    if not hosts.first():
        return
    logging.info("\033[33mNOTE\033[0m %s" if sys.stderr.isatty() else "NOTE %s", line)


def train(config: ConfigDict, workdir_path: str, change_mixture: bool = False) -> Path:
    """Runs the configuration to its end and returns the work directory. ``change_mixture``: a run in it may go on with
    other sources and another share of edits. Raises UserError for what a person can mend."""
    with contextlib.ExitStack() as opened:  # however a run ends, the save in flight is awaited
        return run(config, workdir_path, opened, change_mixture)


def run(config: ConfigDict, workdir_path: str, opened: contextlib.ExitStack, change_mixture: bool = False) -> Path:
    """The stages of ``train``; what has to be closed goes to ``opened``."""
    termination, clock = opened.enter_context(stopping.Termination()), Clock()
    if config.compile_cache:
        jax.config.update("jax_compilation_cache_dir", config.compile_cache)
    ############################ 1. What the run does: the step table
    with about_settings():
        settings.check_settings(config)
        distilling, adapted = config.objective != "flow_matching", lora.of(config)
        recipe = make_recipe(config.distill) if distilling else None
        names = teacher_names(config.distill) if distilling else ()
        table = make_table(config, recipe)
        facts = {"the step table": table.digest(), "--workdir": workdir_path, "--change-mixture": f"{change_mixture}"}
        hosts.start(flat(json.loads(config.to_json()), "config.") | facts)
        mesh = meshes.make_mesh(config.mesh)
    note(describe(config, table))

    ############################ 2. Data: nothing is written before it is known to be there
    settings.check_edits(config, table)
    named = [config.distill.teachers[name] for name in names]
    with hosts.together():
        for source in config.sources.values():
            workdir.existing(source.path, "data set")
        sources, manifests = open_sources(config.sources.to_dict())
        for name, manifest in manifests.items():
            settings.check_data(manifest, config.sources[name].path, config)
        check_there(config)
        mentioned = settings.edited(config, manifests).reference_at
        watched = watch.load(config)
        encoder = said.of(config.sources, manifests) or text.default_encoder()
        watch.check_texts(config, (table.task == 0).any(), watched, encoder)
        own_nulls = all(manifest.get("own_nulls") for manifest in manifests.values())  # every record has its
        negatives = [] if own_nulls else [teacher.get("negative", "") for teacher in named] or [""]
        null_states = encoder.encode(negatives)
        known = dict.fromkeys(category for manifest in manifests.values() for category in manifest["categories"])
        mixture = Mixture(
            sources, table.task, table.phase, batch_size=config.batch_size, seed=config.seed,
            classes=config.distill.classes if distilling else tuple(known),
        )  # fmt: skip
    note(mixture.describe())

    ############################ 3. Where it lives: work directory, mesh
    free = workdir.MIXTURE if change_mixture else ()
    with hosts.together():
        if hosts.first():
            opened.enter_context(workdir.alone(Path(workdir_path)))
            if change_mixture:
                workdir.check_unfinished(Path(workdir_path), len(table))
            workdir.claim(workdir_path, config, needed_bytes=256 << 20, free=free)
            workdir.keep_table(Path(workdir_path), f"{describe(config, table)}\n{mixture.describe()}\n", change_mixture)
    with hosts.together():
        folder = workdir.shared(workdir_path, config)
    note(f"{mesh.size} x {jax.devices()[0].device_kind} as {dict(mesh.shape)}; work directory {folder}")
    better = watch.FIGURES.get(config.keep_best, min)
    checkpoints = Checkpoints(folder / "checkpoints", config.keep_checkpoints, config.keep_best, better)
    opened.callback(checkpoints.close)
    start = hosts.of_first(dict(start=checkpoints.latest() or 0))["start"]  # disks of a network may differ
    if change_mixture:
        note(f"the mixture changes at row {start}; {folder / 'step_table.txt'} keeps what it was before")
    if start == len(table):
        note("finished before; there is nothing left to do")
        return folder

    ############################ 4. Model: one architecture, roles are parameter trees
    model = models.architecture(config.model.architecture)
    model_config = models.make_config(model, config.model)
    denoiser = model.denoiser(model_config)
    with hosts.together():  # each may have read the data's manifests from a disk of its own
        autoencoder = settings.check_latents(config, model_config, manifests)
    tokens = autoencoder.tokens(config.image_size)
    fits = dict(batch=config.batch_size, parts=config.micro_batches, heads=model_config.heads, tokens=tokens)
    meshes.check_fits(mesh, **fits)
    loader = make_loader(
        mixture, batch_size=config.batch_size, max_text_tokens=config.max_text_tokens,
        rows=hosts.rows_of(meshes.batch_sharded(mesh), config.batch_size), images=not distilling,
    )  # fmt: skip
    whole = model.abstract(model_config)
    trained = lora.form(adapted, whole) if adapted else whole
    placed, trained_placed = (sharding.shardings(form, mesh) for form in (whole, trained))

    ############################ 5. Optimizers, and whether all that is kept has room on these devices
    optimizers = make_optimizers(config, table)
    student_optimizer, critic_optimizer = (sharding.divided(o, mesh) if o else None for o in optimizers)
    create = partial(TrainState.create, student_optimizer=student_optimizer, critic_optimizer=critic_optimizer)
    named_weights = [teacher.weights for teacher in named]
    beside = frozen_forms(config, whole, mesh, named_weights)
    abstract = sharding.with_shapes(jax.eval_shape(create, trained), mesh)
    memory.check_room((abstract, beside))
    with hosts.together():
        if hosts.first():
            workdir.check_disk(folder, jax.tree.leaves(abstract), config.keep_checkpoints + bool(config.keep_best))

    ############################ 6. Weights, and the state: begun, or resumed on any mesh
    noise = partial(jax.jit(partial(model.init, model_config), out_shardings=placed), jax.random.key(config.seed))
    init, critic, frozen, begun_with = roles.load(config, named_weights, whole, trained, mesh, noise)
    # By content: a path says nothing of a data set that was prepared anew.
    data = {config.sources[name].path: manifest["sha256"][:16] for name, manifest in manifests.items()}
    hosts.check_same(data | begun_with)
    places = (held.placed(sharding.shardings(tree, mesh), config.teacher_memory) for tree in frozen)
    teachers = tuple(map(sharding.put, frozen, places))
    del frozen  # what devices hold of it makes room for the state
    trains = f" trains {optim.parameter_count(init):,} of its adapters' in place of" if adapted else ":"
    note(f"{config.model.architecture}{trains} {optim.parameter_count(whole):,} parameters, {len(named)} teachers")
    meta = dict(config=workdir.identity(config), table=table.digest(), data=data, sha256=begun_with)
    if not start:
        with hosts.together():
            if told := begun_from(config, begun_with):
                note(told)
        begin = jax.jit(create, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))
        state = begin(sharding.put(init, trained_placed), critic=sharding.put(critic, trained_placed))
    else:
        state, position = checkpoints.restore(start, abstract, meta, free)
        loader.set_state(position["loader"])
        note(f"resumed from step {start}")
    del init, critic  # the state has its own copies

    ############################ 7. Programs: compiled before the first step
    # Padded to the text length where it takes the place of dropped captions, else of its true two tokens.
    null_tokens = config.max_text_tokens if not distilling else None
    nulls = tuple(model.Condition(*text.pack([states], null_tokens)) for states in null_states)
    # A batch of each task, from the first row that has it.
    tasks = {int(task): int(row) for task, row in zip(*np.unique(table.task, return_index=True), strict=True)}
    first = {task: meshes.put_batch(peek(loader, row), mesh) for task, row in tasks.items()}
    call = partial(
        step_call, config=config, model=model, denoiser=denoiser, recipe=recipe, table=table, nulls=nulls,
        size=config.image_size, student_optimizer=student_optimizer, critic_optimizer=critic_optimizer, adapted=adapted,
        autoencoder=autoencoder, reference_at=mentioned,
    )  # fmt: skip
    note(f"compiling {len(table.programs())} programs: a minute or more, or seconds where they are kept")
    with clock.during("compiling"):
        programs = compile_programs(table, call, (state, teachers, first), mesh)
    note(f"compiled {len(programs)} programs in {clock.seconds['compiling']:.0f} s")

    ############################ 8. What is looked at on the way
    decode, drawers, shown = load_decoder(autoencoder, config), [], denoiser
    if adapted:  # of (base, adapter)
        shown = lora.paired(denoiser, adapted.scale, partial(held.readable, memory=config.teacher_memory))
    if decode is None:
        note("no samples are drawn: config.autoencoder.weights names no decoder")
    if 0 in tasks and decode is not None:
        drawers.append(pictures.make_drawer(config, model, shown, encoder, decode, folder, mesh))
    if 1 in tasks and decode is not None:
        edits = [mixture[tasks[1] * config.batch_size + i] for i in range(min(12, config.batch_size))]
        drawers.append(pictures.make_edit_drawer(config, model, shown, encoder, decode, edits, folder, mesh, mentioned))
    drawers += watch.make_watchers(config, model, shown, encoder, decode, watched, folder, mesh)
    writer = MetricsWriter(folder, writes=hosts.first())
    opened.callback(writer.close)
    counted = cost.Cost(
        config.model.architecture, model_config, recipe, batch=config.batch_size, sizes=cost.sizes_of(config, first),
        nulls=[null.text.shape[1] for null in nulls], own_nulls=cost.own_nulls(first),
    )  # fmt: skip
    at_peak = cost.at_peak(counted, table, jax.devices()[0].device_kind, mesh.size)
    pace, speed = stopping.Pace(mesh), Speed(clock, table.phase, config.batch_size / mesh.size, at_peak)
    profile = Profile(config.profile, folder / "profile")
    opened.callback(profile.stop)
    watchdog = Watchdog(
        folder / "hosts", jax.process_index(), jax.process_count(), config.watchdog_minutes, lambda: clock.doing
    )

    def look(state: TrainState, done: int) -> dict[str, float]:
        with clock.during("drawing"):
            drawn = (teachers[0], state.ema) if adapted else state.ema
            own = {name: value for draw in drawers for name, value in draw(drawn, done).items()}
            figures = hosts.of_first(own) if config.keep_best else own
        writer.write(done - 1, figures)
        return figures

    ############################ 9. The loop. What it waits for is two rows old, but for the flush before a checkpoint.
    bar = tqdm(
        range(start, len(table)), config.objective, len(table), unit="step", initial=start, mininterval=5,
        disable=not hosts.first(),
    )  # fmt: skip
    opened.enter_context(termination.held())
    opened.enter_context(watchdog)
    clock.turn("steps")
    for step in bar:
        with clock.during("data"):
            began = time.monotonic()
            batch = meshes.put_batch(next(loader), mesh)
            hidden = pace.busy(began)
        clock.hidden(hidden)
        if profile.begins(step):
            pace.drain()
            with clock.during("profiling"):
                profile.start()
        began = time.monotonic()
        state, metrics = run_row(programs, table, step, state, teachers, batch)
        watchdog.dispatched(step)
        writer.add(step, table.labelled(step, metrics, names) | mixture.counts(step))
        stops = pace.add(step, began, jax.tree.leaves(metrics)[0], termination.received)
        watchdog.beat()
        if profile.ends(step):
            pace.drain()
            with clock.during("profiling"):
                profile.stop()
        done = step + 1
        intervals = config.sample_every, config.checkpoint_every
        draws, saves = (done % every == 0 or done == len(table) for every in intervals)
        saves = saves or stops
        if draws or saves:
            stops = pace.drain()
            saves = saves or stops  # told in the rows that were waited for just now
        if draws and stops and done == len(table):
            note("told to stop: the last samples and figures are left out; flashjax sample and evaluate make them")
        draws = draws and not stops  # who is told to stop has seconds to save
        if done % config.log_every == 0 or draws or saves:
            # All steps, where something else comes between this and the next: its time is not theirs.
            means = writer.flush(everything=draws or saves, also=speed.since(pace.times()))
            bar.set_postfix({k: f"{v:.3g}" for k, v in means.items() if k.endswith("loss")})
        # Metrics of all steps before a checkpoint have been seen to be finite. It is saved before anything is drawn, as
        # drawing may fail where training does not (a disk, memory), but where what is drawn decides what is kept.
        figures = look(state, done) if draws and config.keep_best else {}
        if saves:
            before = clock.seconds["saving"]
            with clock.during("saving"):
                told = {config.keep_best: figures[config.keep_best]} if figures else None
                checkpoints.save(done, state, dict(loader=loader.get_state()), meta, told)
            writer.write(step, dict(ms_saving=(clock.seconds["saving"] - before) * 1e3))
        if draws and not config.keep_best:
            look(state, done)
        if draws or saves:
            writer.restart_clock()
        if stops:
            break

    ############################ 10. Leave
    clock.turn("saving")
    checkpoints.wait()  # while the watchdog still looks
    best = checkpoints.best() if config.keep_best else None
    opened.close()
    note(clock.goodput())
    if best is not None:
        note(f"best by {config.keep_best}: step {best}, which sample, evaluate and export take as --step")
    if done < len(table):
        note(f"told to stop: step {done} is saved in {folder}; start again with the same arguments to go on")
        raise SystemExit(stopping.TRY_AGAIN)
    note(f"done: {folder}")
    return folder


def make_optimizers(config: ConfigDict, table: schedule.StepTable):
    """(student's, critic's or None); a schedule counts the updates of its own network."""
    student, *critic = (optim.make_optimizer(config[name], count) for name, count in updates(config, table).items())
    return student, critic[0] if critic else None


def peek(loader, row: int) -> dict:
    """The batch of a row, without moving the loader."""
    position = loader.get_state()
    loader.set_state(position | dict(next_index=row))
    batch = next(loader)
    loader.set_state(position)
    return batch
