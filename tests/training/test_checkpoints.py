"""Checkpoints: whole or absent, exact, and refused when anything about them is not as it was saved."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from hajax.training import checkpoints
from hajax.training.checkpoints import CheckpointError, list_checkpoints, read_checkpoint, restore, save_checkpoint
from hajax.training.manifest import FORMAT, digest


class Pair(NamedTuple):
    first: object
    second: object


def tree(offset: int = 0):
    """Every kind of leaf that a run's state has: keys, scalars, empty arrays, several dtypes, None."""
    return {
        "params": Pair(jnp.arange(6.0).reshape(2, 3) + offset, {"bias": jnp.full(4, jnp.nan)}),
        "key": jax.random.split(jax.random.key(7 + offset), 2),
        "step": jnp.asarray(3 + offset),
        "flags": jnp.array([True, False]),
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "empty": jnp.zeros((2, 0), int),
        "other key": jax.random.key(5 + offset, impl="rbg"),
        "nothing": None,
    }


def data(leaf):
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def assert_identical(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert data(x).tobytes() == data(y).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two checkpoints, made once; tests that spoil one work on a copy."""
    directory = tmp_path_factory.mktemp("checkpoints")
    for step in (10, 20):
        save_checkpoint(directory, step, tree(step), {"rows": step, "seconds": {"wall": 0.1}}, keep=3)
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_is_restored_is_what_was_saved(saved):
    found = read_checkpoint(saved)
    assert (found.step, found.facts) == (20, {"rows": 20, "seconds": {"wall": 0.1}})
    assert_identical(restore(found, jax.eval_shape(tree)), tree(20))
    assert_identical(restore(read_checkpoint(saved, 10), tree()), tree(10))


def test_a_part_is_restored_alone(saved):
    found = restore(read_checkpoint(saved), tree()["params"], under="params/")
    assert_identical(found, tree(20)["params"])


def test_restored_arrays_may_be_donated(saved):
    restored = restore(read_checkpoint(saved), tree())
    again = jax.tree.map(jnp.copy, restored)
    moved = jax.jit(lambda x: jax.tree.map(lambda y: y, x), donate_argnums=0)(restored)
    assert_identical(moved, again)


def test_manifest_describes_every_array(saved):
    manifest = json.loads((saved / f"{20:012d}" / "manifest.json").read_text())
    assert manifest["format"] == FORMAT
    arrays = manifest["arrays"]
    assert set(arrays) == {"params/first", "params/second/bias", "key", "step", "flags", "half", "empty", "other key"}
    assert (arrays["params/first"]["shape"], arrays["params/first"]["dtype"]) == ([2, 3], "float32")
    assert arrays["empty"]["shape"] == [2, 0]
    assert arrays["key"]["dtype"] == "key<fry>"


def test_only_the_last_are_kept(tmp_path):
    for step in range(1, 5):
        save_checkpoint(tmp_path, step, {"x": jnp.zeros(1)}, {}, keep=2)
    assert list_checkpoints(tmp_path) == [3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{3:012d}", f"{4:012d}"]


def test_a_checkpoint_that_exists_is_left_alone(copy):
    before = (copy / f"{20:012d}" / "manifest.json").read_bytes()
    save_checkpoint(copy, 20, tree(99), {}, keep=3)
    assert (copy / f"{20:012d}" / "manifest.json").read_bytes() == before


def test_every_flipped_bit_is_noticed(copy):
    """One bit in every file, at its start, middle and end."""
    path = copy / f"{20:012d}"
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.stat().st_size]
    assert len(files) > 3
    for file in files:
        content = file.read_bytes()
        for position in {0, len(content) // 2, len(content) - 2}:
            spoiled = bytearray(content)
            spoiled[position] ^= 1
            file.write_bytes(spoiled)
            with pytest.raises(CheckpointError, match=r"damaged|has format"):
                read_checkpoint(copy)
        file.write_bytes(content)
    assert_identical(restore(read_checkpoint(copy), tree()), tree(20))


def test_truncated_and_missing_files_are_named(copy):
    path = copy / f"{20:012d}"
    for file in [file for file in sorted(path.rglob("*")) if file.is_file() and file.stat().st_size]:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match=file.name):
            read_checkpoint(copy)
        file.unlink()
        with pytest.raises(CheckpointError, match=f"{file.name} is missing"):
            read_checkpoint(copy)
        file.write_bytes(content)


def rewrite_manifest(path, change):
    """As someone would who also keeps the manifest's own digest right."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest | {"sha256": digest(manifest)}))


def test_an_array_that_is_restored_wrongly_is_noticed(copy):
    rewrite_manifest(copy / f"{20:012d}", lambda m: m["arrays"]["params/first"].update(sha256="0" * 64))
    with pytest.raises(CheckpointError, match="params/first is damaged"):
        restore(read_checkpoint(copy), tree())


@pytest.mark.parametrize("version", [1, 3])
def test_another_format_is_refused(copy, version):
    rewrite_manifest(copy / f"{20:012d}", lambda m: m.update(format=version, hajax="9.0"))
    with pytest.raises(CheckpointError, match=rf"has format {version}, written by hajax 9\.0; allowed: 2, which"):
        read_checkpoint(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flags": jnp.array([True])}, r"holds flags as bool\[2\]; allowed: bool\[1\]"),
        ({"step": jnp.zeros(())}, r"holds step as int32\[\]; allowed: float32\[\]"),
        ({"more": jnp.zeros(())}, r"holds more as nothing; allowed: float32\[\]"),
        ({"half": None}, r"holds half as bfloat16\[3\]; allowed: nothing"),
    ],
)
def test_another_structure_is_refused(saved, change, message):
    with pytest.raises(CheckpointError, match=message):
        restore(read_checkpoint(saved), tree() | change)


def test_missing_checkpoints_are_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint=last: .* holds no checkpoint"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint=15 is not in .*; allowed: last, 10, 20"):
        read_checkpoint(saved, 15)


KILLED_WRITE = """
import os, signal, sys
from pathlib import Path
import jax.numpy as jnp
from hajax.training import checkpoints
directory, moment = Path(sys.argv[1]), sys.argv[2]
checkpoints.save_checkpoint(directory, 1, {"x": jnp.arange(5.0)}, {}, keep=1)
original = getattr(checkpoints, moment)
def killed(*args, **kwargs):
    if moment == "_flush":
        original(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(checkpoints, moment, killed)
checkpoints.save_checkpoint(directory, 2, {"x": jnp.arange(5.0) + 1}, {}, keep=1)
"""


@pytest.mark.parametrize("moment", ["write_manifest", "_flush", "_remove"])
def test_killed_while_writing(tmp_path, moment):
    """Before the manifest, before the rename, and before the old checkpoint is removed."""
    process = subprocess.run([sys.executable, "-c", KILLED_WRITE, str(tmp_path), moment], check=False)
    assert process.returncode == -signal.SIGKILL
    last = 2 if moment == "_remove" else 1
    found = read_checkpoint(tmp_path)
    assert found.step == last
    np.testing.assert_array_equal(restore(found, {"x": jnp.zeros(5)})["x"], np.arange(5.0) + (last - 1))
    checkpoints.remove_unfinished(tmp_path)
    assert all(name.isdigit() for name in os.listdir(tmp_path))


ODD = [
    "sizes=[8],[16]",
    "a*b?",
    "{a,b}",
    "100% sure%41",
    "#1 & more; done",
    "größe",
    "back\\slash",
    'it\'s "it"',
    "a\nb",
]


@pytest.mark.parametrize("name", ODD)
def test_paths_of_any_characters(name, tmp_path):
    """What orbax takes for patterns and escapes; the folder above it too, and a relative path."""
    directory = tmp_path / name / "checkpoints"
    for step in (1, 2):
        save_checkpoint(directory, step, tree(step), {}, keep=1)
    assert list_checkpoints(directory) == [2]
    assert_identical(restore(read_checkpoint(directory), tree()), tree(2))
    assert sorted(path.name for path in directory.iterdir()) == [f"{2:012d}"]


def write_other(path, arrays, write=checkpoints.write_arrays):
    write(path, {name: x + 1 if name == "step" else x for name, x in arrays.items()})


def write_less(path, arrays, write=checkpoints.write_arrays):
    write(path, {name: x for name, x in arrays.items() if name != "step"})


def write_unmerged(path, arrays, write=checkpoints.write_arrays):
    """As orbax leaves a directory whose parts it could not merge."""
    write(path, arrays)
    (path / "manifest.ocdbt").unlink()


@pytest.mark.parametrize("write", [write_other, write_less, write_unmerged])
def test_what_was_written_wrongly_replaces_nothing(write, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, tree(1), {}, keep=1)
    monkeypatch.setattr(checkpoints, "write_arrays", write)
    with pytest.raises(Exception, match=r"step|not found|exist|No such file|metadata"):
        save_checkpoint(tmp_path, 2, tree(2), {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:012d}"]
    assert_identical(restore(read_checkpoint(tmp_path), tree()), tree(1))


@pytest.mark.parametrize(("code", "text"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file")])
def test_a_full_disk_is_the_system_s_own_error_and_loses_nothing(code, text, tmp_path, monkeypatch):
    """orbax tells it as an error of its own."""

    def full(self, path, arrays):
        path.mkdir()
        raise ValueError(f"INTERNAL: Error writing {path}: [OS error {code}: {os.strerror(code)}]")

    save_checkpoint(tmp_path, 1, tree(1), {}, keep=1)
    monkeypatch.setattr(orbax.checkpoint.Checkpointer, "save", full)
    with pytest.raises(OSError, match=text) as error:
        save_checkpoint(tmp_path, 2, tree(2), {}, keep=1)
    assert error.value.errno == code
    assert [path.name for path in tmp_path.iterdir()] == [f"{1:012d}"]


def test_another_precision_is_converted_where_that_is_wanted(tmp_path):
    narrow = {"weight": jnp.array([1.0, 1 / 3]), "count": jnp.arange(3), "key": jax.random.key(1)}
    save_checkpoint(tmp_path, 1, narrow, {}, keep=1)
    with jax.enable_x64(True):
        wide = {"weight": jnp.zeros(2), "count": jnp.zeros(3, int), "key": jax.random.key(0)}
        assert (wide["weight"].dtype, wide["count"].dtype) == (jnp.float64, jnp.int64)
        found = restore(read_checkpoint(tmp_path), wide, cast=True)
        assert [found[name].dtype for name in wide] == [wide[name].dtype for name in wide]
        np.testing.assert_array_equal(found["weight"], np.float64(narrow["weight"]))
        with pytest.raises(CheckpointError, match=r"int32\[3\]; allowed: int64\[3\].*jax_enable_x64=True"):
            restore(read_checkpoint(tmp_path), wide)
        save_checkpoint(tmp_path, 2, jax.tree.map(lambda x: x, found), {}, keep=1)
    back = restore(read_checkpoint(tmp_path), narrow, cast=True)
    assert_identical(back, narrow)
    with pytest.raises(CheckpointError, match=r"int64\[3\]; allowed: float32\[3\]"):
        restore(read_checkpoint(tmp_path), narrow | {"count": jnp.zeros(3)}, cast=True)


def test_sums_of_another_version_are_zero_and_the_rest_is_what_was_saved(tmp_path):
    """Diagnostics come and go between versions, and do not keep a run from going on."""
    old = {"train": {"x": jnp.arange(3.0)}, "totals": {"metrics": {"loss": jnp.ones(2), "gone": jnp.ones(2)}}}
    save_checkpoint(tmp_path, 1, old, {}, keep=1)
    new = {"train": {"x": jnp.zeros(3)}, "totals": {"metrics": {"loss": jnp.ones(2), "new": jnp.ones(2)}}}
    with pytest.raises(CheckpointError, match="holds totals/metrics/new as nothing"):
        restore(read_checkpoint(tmp_path), new)
    restored = restore(read_checkpoint(tmp_path), new, sums="totals/")
    np.testing.assert_array_equal(restored["train"]["x"], [0, 1, 2])
    assert {name: x.tolist() for name, x in restored["totals"]["metrics"].items()} == {"loss": [0, 0], "new": [0, 0]}
    assert restore(read_checkpoint(tmp_path), old, sums="totals/")["totals"]["metrics"]["gone"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="holds train/x as"):
        restore(read_checkpoint(tmp_path), new | {"train": {"x": jnp.zeros(4)}}, sums="totals/")
