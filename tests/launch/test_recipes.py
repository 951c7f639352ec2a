"""The scripts of recipes with several stages: all commands that they make are accepted."""

import shlex

import pytest

from tests.launch.shell import LAUNCH, Shell, assert_refused
from trainer.comparison.study_cells import parse_main_flags

DATA = ["--data_dir=my data", "--run_dir=RUN"]
SCRIPTS = {
    "basu.sh": [*DATA, "--first_data_dir=LARGE", "--first_map=Lung_Opacity:Ill,COVID:Ill"],
    "hammoudi.sh": [*DATA, "--backbones=resnet34 vgg19", "--classes=Normal,Viral Pneumonia"],
    "covid_resnet.sh": [*DATA, "--sizes=32 48"],
    "shelke.sh": ["--data_dir=DATA", "--cascade_dir=DIR", "--third=none"],
    "rahman.sh": [
        "--input_dir=IN",
        "--output_dir=OUT",
        "--run_dir=RUN",
        "--enhancements=none bcet",
    ],
}


def commands(tmp_path, script):
    """(module, its arguments) of each command that a dry run prints."""
    shell = Shell(tmp_path)
    rest = ["--dry_run", "--", "--epochs=2"]
    done = shell.script(f"recipes/{script}", *SCRIPTS[script], *rest)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert not shell.calls()  # nothing was run
    assert shell.script(f"recipes/{script}", *SCRIPTS[script], *rest[1:]).returncode == 0
    calls = [call[1:] for call in shell.calls() if call[0] == "python3"]
    assert calls == [line[line.index("-m") :] for line in lines]
    assert_refused(shell.script(f"recipes/{script}"), "missing option --")
    assert f"launch/recipes/{script} --" in shell.script(f"recipes/{script}", "--help").stdout
    return [(call[1], call[2:]) for call in calls]


@pytest.mark.parametrize("script", SCRIPTS)
def test_trainings_have_flags_of_the_recipe_and_the_users(tmp_path, script):
    assert SCRIPTS.keys() == {path.name for path in LAUNCH.glob("recipes/*.sh")} - {"recipe.sh"}
    for module, arguments in commands(tmp_path, script):
        if module == "trainer.main":
            values = parse_main_flags(arguments)
            assert (values["epochs"].value, values["batch_size"].value) == (2, 32)


def test_each_stage_starts_from_the_one_before(tmp_path):
    [(_, first), (_, second)] = commands(tmp_path, "covid_resnet.sh")
    assert first[-3:-1] == ["--image_size=32", "--weights=auto"]
    assert second[-3:-1] == ["--image_size=48", "--init_from=RUN/32"]


def test_the_blind_test_leaves_out_what_was_trained_on(tmp_path):
    [_, (module, blind), *_] = commands(tmp_path, "hammoudi.sh")
    assert module == "trainer.evaluate"
    assert blind[-1] == "--map_classes=COVID:Viral Pneumonia,Normal:,Viral Pneumonia:"
