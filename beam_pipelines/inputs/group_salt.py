"""The secret with which ids of patients, and where wanted file names, are hashed.

The first build makes it at random, in a file that lies outside of every data set. Without it, a
reader of a data set could hash all possible ids and find those that are in it.
"""

from __future__ import annotations

import hashlib
import os
import secrets

from cxr_tfrecords import files
from cxr_tfrecords.errors import UserError

_MIN_LENGTH = 16  # of a salt that a user has written; ours have 32 hex digits, 128 bits


def group_digest(value: str, salt: str) -> str:
    """32 hex digits of a patient id or the like: keyed BLAKE2b (RFC 7693), the salt is its key.

    Whoever knows the salt can find an id by trying all possible ids, so keep the salt secret.
    """
    return hashlib.blake2b(value.strip().encode(), digest_size=16, key=_key(salt)).hexdigest()


def hashed_name(filename: str, salt: str) -> str:
    """32 hex digits in place of a file's path in the input folder, for --anonymize_names."""
    name = filename.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=16, key=_key(salt), person=b"cxr-name").hexdigest()


def _key(salt: str) -> bytes:
    return hashlib.sha256(salt.encode()).digest()


def salt_id(salt: str) -> str:
    """Six hex digits that differ for two salts. They are stored, and tell whether a guess is right:
    a random salt cannot be guessed."""
    return hashlib.blake2b(salt.encode(), digest_size=3, person=b"cxr-salt-id").hexdigest()


def default_path() -> str:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "cxr-balance", "group_salt")


def find_salt(path: str, output_dir: str, earlier_id: str) -> str:
    """Reads the salt, or draws it where no data set depends on it yet.

    Args:
      path: --group_salt_file; empty: `default_path()`.
      earlier_id: `salt_id` of the data set that --output_dir holds; empty: it holds no ids, or
        there is none.

    Returns:
      The salt. Empty: the data set is of an earlier version, which hashed without a salt.

    Raises:
      UserError: the file lies in --output_dir, cannot be used, or is not that of the data set.
    """
    if not path and earlier_id == salt_id(""):
        return ""
    file = path or default_path()
    inside = files.is_local(file) and files.is_local(output_dir)
    if inside and os.path.realpath(file).startswith(os.path.realpath(output_dir) + os.sep):
        raise UserError(
            f"--group_salt_file={file} lies in --output_dir, and would be given away with the data "
            "set: name a file outside"
        )
    if not earlier_id and not files.exists(file):
        return secrets.token_hex(16)
    try:
        salt = files.read_bytes(file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--group_salt_file={file} cannot be read ({error}): name the file with the secret "
            f"that the ids of patients in {output_dir} are hashed with"
        ) from error
    if earlier_id and salt_id(salt) != earlier_id:
        raise UserError(
            f"the ids of patients in {output_dir} were hashed with another secret than that in "
            f"{file}: name its file with --group_salt_file, or build anew with --overwrite"
        )
    if not earlier_id and len(salt) < _MIN_LENGTH:
        raise UserError(
            f"--group_salt_file={file} holds {len(salt)} characters, which can be guessed: name a "
            "file that does not exist, and the build makes it"
        )
    return salt


def keep_salt(
    path: str, salt: str, *, may_hold_ids: bool = True, for_names: bool = False
) -> str | None:
    """Writes a new salt to its file, which only the user can read.

    Args:
      path: as in `find_salt`.
      may_hold_ids: without such, and without a path, a build must not depend on ~/.config: it could
        not go on where that is lost.
      for_names: names of files are hashed with it.

    Returns:
      The salt; None: it is not needed, or `default_path()` cannot be written.

    Raises:
      UserError: --group_salt_file cannot be written, or names need a salt and there is none.
    """
    kept = None
    if path or may_hold_ids or for_names:
        kept = salt if not salt or _write(path or default_path(), salt, must=bool(path)) else None
    if for_names and not kept:
        raise UserError(
            "--anonymize_names needs a secret that can be kept: name a file for it with "
            "--group_salt_file"
        )
    return kept


def _write(file: str, salt: str, must: bool) -> bool:
    """Writes the salt unless the file exists; returns whether it is there."""
    if files.exists(file):
        return True
    try:
        if not files.is_local(file):
            raise OSError("it must exist if it is not on this machine")
        os.makedirs(os.path.dirname(os.path.abspath(file)), exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(f"{salt}\n")
    except OSError as error:
        if not must:
            return False
        raise UserError(
            f"--group_salt_file={file} cannot be written ({error}): name another file"
        ) from error
    return True


def check_protection(has_ids: bool, salt: str | None) -> tuple[str, ...]:
    """Warnings about ids that are stored without protection.

    Raises:
      UserError: there are ids, and no salt is kept (None).
    """
    if not has_ids or salt:
        return ()
    if salt is None:
        raise UserError(
            "the images name their patients, whose ids must be hashed with a secret: name a file "
            "for it with --group_salt_file (it is made if there is none); no shard was written"
        )
    return (
        "warning: ids of patients are stored as hashes without a secret: whoever tries all "
        "possible ids finds them. Build a new --output_dir, or this one with --overwrite, before "
        "you pass the data set on",
    )
