"""What the command line cannot mean is refused before anything is touched."""

import sys
from pathlib import Path
from unittest import mock

import pytest

from endoclip_jax.configuration import read_command_line, resolve
from endoclip_jax.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("flag", ["--config.data.shards", "--workdir"])
@pytest.mark.parametrize("bucket", ["gs://bucket/shards", "s3://bucket/run"])
def test_a_bucket_is_refused_with_what_to_do_instead(flag, bucket):
    argv = ["main.py", "--config=configs/stage1.py", f"{flag}={bucket}"]
    with mock.patch.object(sys, "argv", argv):  # ml_collections reads overrides there
        config, overridden = read_command_line(argv, ROOT)
    with pytest.raises(UserError, match=r"mount it \(gcsfuse, goofys\) or copy it") as error:
        resolve(config, overridden)
    key = flag.removeprefix("--").removeprefix("config.")
    assert f"config.{key} is" in str(error.value) and "bucket/" in str(error.value)
    assert "\n" not in str(error.value)
