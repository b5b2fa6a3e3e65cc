"""What the command line cannot mean is refused before anything is touched."""

from pathlib import Path

import pytest

from endoclip_jax.configuration import read_command_line, resolve
from endoclip_jax.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("flag", ["--config.data.shards", "--workdir"])
@pytest.mark.parametrize("bucket", ["gs://bucket/shards", "s3://bucket/run"])
def test_a_bucket_is_refused_with_what_to_do_instead(flag, bucket):
    argv = ["main.py", "--config=configs/stage1.py", f"{flag}={bucket}"]
    config, overridden = read_command_line(argv, ROOT)
    with pytest.raises(UserError, match=r"mount it \(gcsfuse, goofys\) or copy it") as error:
        resolve(config, overridden)
    key = flag.removeprefix("--").removeprefix("config.")
    assert f"config.{key} is" in str(error.value) and "bucket/" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "file", [["--config=configs/stage1.py"], ["--config", "configs/stage1.py"]]
)
def test_settings_may_stand_before_the_file_they_change(file):
    argv = ["main.py", "--config.seed=3", "--workdir=runs/x", *file, "--config.stage1.rho=0.3"]
    config, overridden = read_command_line(argv, ROOT)
    assert (config.seed, config.stage1.rho, config.goal) == (3, 0.3, "stage1")
    assert Path(config.workdir).name == "x" and overridden == {"seed", "stage1.rho"}
