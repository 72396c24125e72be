"""The project keeps its own rules."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spf.config import load_config
from spf.plain import to_dict

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("climatesuite/**/*.py"), *ROOT.glob("spf/**/*.py")])
EXPERIMENTS = sorted([*ROOT.glob("experiments/*.yaml"), *ROOT.glob("experiments/comparisons/*.yaml")])


def tool(name):
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is not installed; pip install -e '.[check]'")
    return found


@pytest.mark.parametrize(
    "command", [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."]], ids=" ".join
)
def test_import_contracts_and_style_hold(command):
    done = subprocess.run([tool(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small_and_begin_by_saying_what_they_are(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert not text.strip() or text.lstrip().startswith(('"""', 'r"""'))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.name)
def test_every_experiment_loads_and_says_all_it_means(path):
    config = load_config(path)
    assert config.name == path.stem
    assert set(yaml.safe_load(path.read_text())) <= set(to_dict(config))


def test_every_setting_of_an_experiment_is_read_somewhere():
    from dataclasses import fields

    from spf import config as module

    code = "\n".join(p.read_text() for p in SOURCES if p.name != "config.py")
    classes = [module.DataConfig, module.NetworkConfig, module.TrainingConfig, module.SamplingConfig, module.RunConfig]
    unread = [f"{c.__name__}.{f.name}" for c in classes for f in fields(c) if not re.search(rf"\.{f.name}\b", code)]
    assert not unread


def test_no_number_in_results_stands_without_its_command():
    for path in ROOT.glob("experiments/results/*.json"):
        content = json.loads(path.read_text())
        assert content["command"].startswith(("spf ", "climatesuite ", "make ", "python experiments/")), path


def test_exact_references_of_cesm2_are_those_of_another_implementation():
    results = ROOT / "experiments" / "results"
    kept = json.loads((results / "references.json").read_text())["rotations"]
    listed = yaml.safe_load((results / "references_listed.yaml").read_text())
    compared = 0
    for test, groups in listed.items():
        rows = {
            (f"{r['variable']} {r['timescale']}", r["model"], r["period"]): r["crps_ratio"] for r in kept[test]["rows"]
        }
        for group, models in groups.items():
            for model, numbers in models.items():
                tolerance = 0.06 if model.startswith("MESMER") else 0.03 if "energy" in model else 0.0055
                for period, number in zip(("full", "headline"), numbers, strict=True):
                    if number is not None:
                        compared += 1
                        assert rows[group, model, period] == pytest.approx(number, abs=tolerance), (test, group, model)
    assert compared > 100


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.name)
def test_notebooks_are_committed_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_unsafe_loading_and_global_randomness_are_absent():
    for path in SOURCES:
        text = path.read_text()
        assert "weights_only=False" not in text or "save_checkpoint" in text, path
        assert not re.search(r"np\.random\.(seed|rand|randn|normal)\(", text), path


def test_every_file_and_command_the_readme_names_exists():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"experiments/[\w.-]+\.yaml", text):
        assert (ROOT / path).exists(), path
