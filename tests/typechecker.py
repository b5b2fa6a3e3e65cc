"""The type checker of the tests: beartype, with PEP 484's rule that an int is a float too."""

from beartype import BeartypeConf
from beartype import beartype as decorator

beartype = decorator(conf=BeartypeConf(is_pep484_tower=True))
