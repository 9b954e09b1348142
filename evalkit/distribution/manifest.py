"""What a part leaves beside its shards: one JSON file, schema ``evalkit.part/1``, that says whose they are.

    manifest = PartManifest.read(Path("evalkit-runs/parts/0f3c…-part-2-of-3.json"))
    manifest.identity.count, manifest.shards, manifest.files[0].path

Secrets are taken out of every text as they are for records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from evalkit import numerics, strict_json
from evalkit.atomic import write_atomically
from evalkit.distribution.facts import PlanFacts, SubjectFacts
from evalkit.distribution.identity import RunIdentity
from evalkit.errors import InvalidInputError
from evalkit.observation import Observed
from evalkit.opening import STATE_FOLDER
from evalkit.provenance import environment
from evalkit.record import utc_now
from evalkit.record_parts import require
from evalkit.redaction import redact_command, without_long_secrets
from evalkit.request import ScoreRequest
from evalkit.shards import Part, ShardLayout
from evalkit.spec import Scalar

FOLDER = "parts"
"""Below the run folder."""
SCHEMA: Final = "evalkit.part/1"
MOST_IMAGES = 1_000_000_000
_NAME_DIGITS = 16
_STATE_FILE = re.compile(r"(?P<lane>[0-9a-f]+(-[0-9a-f]+)*)/(?P<shard>[0-9]{6,9})-[0-9a-f]{32}\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile:
    """A whole shard of one lane.

    Attributes:
        path: POSIX path relative to the ``out`` of the request; its name ends in the digest of its content.
        shard: its number.
    """

    path: str
    shard: int

    def __post_init__(self) -> None:
        # A manifest may come from elsewhere: its paths lead to shards and nowhere else.
        folder, _, rest = self.path.partition("/")
        found = _STATE_FILE.fullmatch(rest) if folder == STATE_FOLDER else None
        require(found is not None and int(found["shard"]) == self.shard, f"{self.path!r} is no state file")

    @property
    def lane(self) -> str:
        """The folder of its lane below ``state``."""
        return PurePosixPath(self.path).parent.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PartManifest:
    """One part of a run.

    Attributes:
        part: its number, from 1; ``of`` how many there are.
        identity: what all parts of the run share.
        request: what was asked for.
        plan: what is measured; ``subject`` what is judged.
        observed: what only the process that computed the shards can know.
        shards: numbers of the shards of this part.
        files: where they lie, of every network and probe; ``reference_files`` those of real images.
        env: of the process that computed it; that of the record.
    """

    schema: Literal["evalkit.part/1"] = SCHEMA
    part: int
    of: int
    created_utc: str = field(default_factory=utc_now)
    identity: RunIdentity
    request: ScoreRequest
    plan: PlanFacts
    subject: SubjectFacts
    observed: Observed
    shards: tuple[int, ...]
    files: tuple[StateFile, ...]
    reference_files: tuple[StateFile, ...] = ()
    env: Mapping[str, Scalar] = field(default_factory=environment)

    def __post_init__(self) -> None:
        require(1 <= self.part <= self.of, f"there is no part {self.part} of {self.of}")
        require(1 <= self.identity.count <= MOST_IMAGES, f"a run has no {self.identity.count} images")
        expected = tuple(self.layout.shards_of(Part(self.part - 1, self.of)))
        require(self.shards == expected, f"the shards of {self.name} are not those that it says")
        require({file.shard for file in self.files} <= set(expected), f"{self.name} holds shards of others")

    @property
    def name(self) -> str:
        """How people ask for it: ``2/3``."""
        return f"{self.part}/{self.of}"

    @property
    def layout(self) -> ShardLayout:
        """How the images of the whole run are cut."""
        return ShardLayout(self.identity.count)

    @property
    def run(self) -> str:
        """Which run it is of, in names of files."""
        return self.identity.digest()[:_NAME_DIGITS]

    def path(self, out: Path) -> Path:
        """Return where it lies below ``out``."""
        return out / FOLDER / f"{self.run}-part-{self.part}-of-{self.of}.json"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data without secrets."""
        data = strict_json.encode_object(self)
        data["request"]["command"] = list(redact_command(self.request.command))
        clean: dict[str, Any] = without_long_secrets(data)  # type: ignore[assignment]
        return clean

    @classmethod
    def from_json(cls, data: object) -> PartManifest:
        """Rebuild a manifest from JSON data.

        Raises:
            InvalidInputError: another schema or release, an unknown or missing key, or a value that is not
                allowed.
        """
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            hint = "written by another release of evalkit?" if found else "this says nothing about a part"
            raise InvalidInputError(f"schema is {found!r}, not {SCHEMA!r}", hint=hint)
        _refuse_other_release(data)
        return strict_json.decode(data, cls)

    def write(self, out: Path) -> Path:
        """Write it below ``out``, in place of an earlier one of the same part; return its path.

        Raises:
            TemporaryError: it cannot be written.
        """
        path = self.path(out)
        write_atomically(path, strict_json.dumps(self.to_json()))
        return path

    @classmethod
    def read(cls, path: Path) -> PartManifest:
        """Read a manifest.

        Raises:
            InvalidInputError: it is none, damaged, or of another release.
        """
        try:
            return cls.from_json(strict_json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InvalidInputError(
                f"{path} cannot be read: {error.strerror or error}", hint="may this user read it?"
            ) from error
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{path}: not UTF-8 text", hint="run the part again") from error
        except InvalidInputError as error:
            raise InvalidInputError(f"{path}: {error.message}", hint=error.hint) from error


def _refuse_other_release(data: object) -> None:
    """Refuse a part of another release, whose shards and facts may mean something else.

    Raises:
        InvalidInputError: names both.
    """
    ours = {"evalkit": version("evalkit"), "numerics": numerics.NUMERICS_VERSION}
    theirs = {
        "evalkit": _value(data, "env", "evalkit"),
        "numerics": _value(data, "identity", "protocol", "numerics_version"),
    }
    for name, value in theirs.items():
        if value != ours[name]:
            raise InvalidInputError(
                f"it was computed by {name} {_shown(value)}, and this is {name} {ours[name]}",
                hint="merge with the release that computed the parts, or run them again with this one",
            )


def _value(data: object, *keys: str) -> object:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _shown(value: object) -> str:
    return value[:40] if isinstance(value, str) else "of no known release"
