"""The guards: lines of the source that keep a promise, each with the tests that turn red when it is taken out.

`python -m tests.soak.guards` prints docs/reference/guards.md. What takes them out is breaking.py. A guard is the exact text
in the source and what stands there instead when it is gone, so this list must be changed with the code: a test of the house
says which entry no longer fits.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Guard:
    """One guard: what it is called, the promise it serves, where it stands, and the tests that notice that it is gone.

    `text` stands once in `file`, and `without` in its place when the guard is taken out. `second` names what else keeps the
    promise where that makes the tests stay green: the guard is then one of two, and no test is named.
    """

    name: str
    promise: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]
    second: str | None = None


STORES = "tests/contract/test_blob_stores.py"
WRITERS = "tests/acceptance/test_writers.py"
CATALOGUE = "tests/protocols/test_native_catalogue.py"
OCI = "tests/protocols/test_oci.py"
TRANSFER = "tests/client/test_transfer.py"
CACHED = "tests/client/test_cache.py"
SERVING = "tests/acceptance/test_serve.py"
IMPORTS = "tests/acceptance/test_imports.py"
BACKUP = "tests/acceptance/test_backup.py"
MANIFESTS = "tests/artifacts/test_manifests.py"
SETTINGS = "tests/server/test_settings.py"
WEBHOOKS = "tests/services/test_webhooks.py"
MLFLOW_FILES = "tests/protocols/test_mlflow_artifacts.py"
MLFLOW_SOURCES = "tests/protocols/test_mlflow_sources.py"
CRASHES = "tests/acceptance/test_crash_points.py"
SEALING = "tests/services/test_sealing.py"
ENTRIES = "tests/services/test_log.py"
MACHINE = "tests/services/test_state_machine.py::test_the_catalogue_does_what_the_model_says_on_sqlite"
FSCK = "tests/acceptance/test_fsck.py"
NAMES = "tests/domain/test_names_and_references.py"
DIRECT = "tests/services/test_direct_uploads.py"

BYTES_IN = "Bytes are stored only under the digest they have"
DURABLE = "What was acknowledged survives a power cut"
BYTES_OUT = "Wrong bytes are never delivered"
CACHE = "What the cache gives is what was sealed, and nobody takes it away meanwhile"
SEALED = "A sealed version never changes"
LOG = "The log cannot be rewritten unseen, and rows are what it says"
NUMBERS = "Numbers have no gap and no duplicate, and name one version for ever"
RETRY = "A request sent again has one effect"
ALIASES = "An alias moves only from where it was seen, to a version that can be used"
FRESH = "Who reads sees everything that was acknowledged before, through whatever server"
ACCESS = "Nobody reads or writes what is not theirs"
SOURCES = "The server opens no file and no address that its operator did not name"
LIMITS = "No input takes more memory or time than its limit"
CODE = "Loading a model runs no code unless its user says so"
WEB = "No page of a browser and no other machine reaches an open server"
UPKEEP = "A backup restores what was backed up, and one process migrates at a time"

GUARDS: tuple[Guard, ...] = (
    # ── bytes in ──
    Guard(
        "digest of an upload, local",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "            digest = check_hash(self._sha256.digest(), expected)\n            with _disk_errors():\n",
        "            digest = check_hash(self._sha256.digest(), None)\n            with _disk_errors():\n",
        (f"{STORES}::TestBlobStore::test_a_wrong_digest_stores_nothing",),
    ),
    Guard(
        "digest of an upload, bucket",
        BYTES_IN,
        "src/touchmark/artifacts/bucket.py",
        "check_hash(self._sha256.digest(), expected), self._size_bytes)",
        "check_hash(self._sha256.digest(), None), self._size_bytes)",
        (
            f"{STORES}::TestBlobStore::test_a_wrong_digest_stores_nothing",
            f"{STORES}::TestSessions::test_a_wrong_digest_leaves_the_session",
        ),
    ),
    Guard(
        "digest of an upload session, local",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "            digest = check_hash(self._sha256.digest(), expected)\n        except DigestMismatchError:\n",
        "            digest = check_hash(self._sha256.digest(), None)\n        except DigestMismatchError:\n",
        (f"{STORES}::TestSessions::test_a_wrong_digest_leaves_the_session",),
    ),
    Guard(
        "size of an upload, local",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "            check_size(self._size_bytes, expected_size_bytes)\n",
        "",
        (f"{STORES}::TestBlobStore::test_a_wrong_size_stores_nothing",),
    ),
    Guard(
        "size of an upload, bucket",
        BYTES_IN,
        "src/touchmark/artifacts/bucket.py",
        "            check_size(self._size_bytes, expected_size_bytes)\n",
        "",
        (f"{STORES}::TestBlobStore::test_a_wrong_size_stores_nothing",),
    ),
    Guard(
        "digest of a part that is joined",
        BYTES_IN,
        "src/touchmark/services/uploads.py",
        "            check_hash(hashing.digest(), part.digest)\n",
        "",
        ("tests/services/test_uploads.py::test_a_part_that_is_lost_or_damaged_does_not_become_part_of_a_file",),
    ),
    Guard(
        "digest of an upload straight to the bucket",
        BYTES_IN,
        "src/touchmark/services/direct_uploads.py",
        "            return writer.commit(row.digest, row.size_bytes)\n",
        "            return writer.commit()\n",
        (f"{DIRECT}::test_other_bytes_than_were_announced_are_stored_nowhere",),
    ),
    Guard(
        "size of a part put into the bucket",
        BYTES_IN,
        "src/touchmark/services/direct_uploads.py",
        "        if found.get(number, 0) > length:\n",
        "        if False:\n",
        (f"{DIRECT}::test_more_bytes_than_were_announced_end_the_upload_as_soon_as_somebody_looks",),
    ),
    Guard(
        "a part cut short counts as missing",
        BYTES_IN,
        "src/touchmark/services/direct_uploads.py",
        "        if found.get(number) == length:\n",
        "        if number in found:\n",
        (f"{DIRECT}::test_who_goes_on_is_given_what_is_missing_and_a_part_cut_short_is",),
    ),
    Guard(
        "hash of a blob copied through",
        BYTES_IN,
        "src/touchmark/artifacts/bucket.py",
        "        check_hash(sha256.digest(), blob.digest)\n        target.close()\n",
        "        target.close()\n",
        (f"{STORES}::test_a_blob_that_changes_while_it_is_copied_through_is_not_stored",),
    ),
    Guard(
        "bucket asked whether it has the bytes",
        BYTES_IN,
        "src/touchmark/artifacts/bucket.py",
        "        if self._find_size(key) != blob.size_bytes:\n",
        "        if False:\n",
        (f"{STORES}::test_a_bucket_that_says_it_copied_and_did_not_is_not_believed",),
    ),
    Guard(
        "a stored blob is compared before it is believed",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "                if any(ours != theirs for ours, theirs in zip(chunks, stored, strict=True)):\n",
        "                if False:\n",
        (f"{STORES}::TestBlobStore::test_a_damaged_blob_is_healed_by_storing_it_again",),
    ),
    Guard(
        "what lies beyond a session's end is cut off",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "                os.ftruncate(self._descriptor, offset)\n",
        "",
        (f"{STORES}::TestSessions::test_what_lies_beyond_where_a_request_begins_is_dropped",),
    ),
    Guard(
        "one request at a time appends",
        BYTES_IN,
        "src/touchmark/artifacts/local.py",
        "            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "",
        (f"{STORES}::test_one_request_at_a_time_sends_to_a_session",),
    ),
    Guard(
        "a piece begins where the upload ends",
        BYTES_IN,
        "src/touchmark/services/sessions.py",
        "        if begin is not None and begin != size_bytes:\n",
        "        if False:\n",
        (f"{OCI}::test_a_piece_that_does_not_begin_where_the_upload_ends_is_refused",),
    ),
    # ── durable ──
    Guard(
        "fsync of a blob's file",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "                    store._sync_file(self._descriptor)  # noqa: SLF001\n"
        "                    store._publish(self._path, digest)  # noqa: SLF001\n",
        "                    store._publish(self._path, digest)  # noqa: SLF001\n",
        (f"{STORES}::test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer",),
    ),
    Guard(
        "fsync before the name, not after it",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "                    store._sync_file(self._descriptor)  # noqa: SLF001\n"
        "                    store._publish(self._path, digest)  # noqa: SLF001\n",
        "                    store._publish(self._path, digest)  # noqa: SLF001\n"
        "                    store._sync_file(self._descriptor)  # noqa: SLF001\n",
        (f"{STORES}::test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer",),
    ),
    Guard(
        "fsync of a blob's folder",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "        self._sync_folder(self.root / shard)\n",
        "",
        (
            f"{STORES}::test_content_is_on_the_disk_before_its_name_and_the_name_before_the_answer",
            f"{STORES}::test_a_blob_that_is_there_already_costs_one_fsync_of_its_folder",
        ),
    ),
    Guard(
        "fsync of the shards' folder",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "            self._sync_folder(self.root / layout.BLOBS_PREFIX)\n            self._durable_shards.add(shard)\n",
        "            self._durable_shards.add(shard)\n",
        (f"{STORES}::test_a_shard_made_by_another_process_is_fsynced_once_by_this_one",),
    ),
    Guard(
        "fsync of a part's name",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "        staged.replace(self.root / layout.part_key(upload_id, digest))\n"
        "        self._sync_folder(self.root / layout.STAGING_PREFIX)\n",
        "        staged.replace(self.root / layout.part_key(upload_id, digest))\n",
        (f"{STORES}::test_a_part_and_its_name_are_on_the_disk_before_the_answer",),
    ),
    Guard(
        "fsync of a session's file",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "            store._sync_file(self._descriptor)  # noqa: SLF001\n"
        "            store._sync_folder(store.root / layout.STAGING_PREFIX)  # noqa: SLF001 - the file may be new\n",
        "            store._sync_folder(store.root / layout.STAGING_PREFIX)  # noqa: SLF001 - the file may be new\n",
        (f"{STORES}::test_what_a_session_has_is_on_the_disk_before_the_answer",),
    ),
    Guard(
        "fsync of a finished session",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "                store._sync_file(self._descriptor)  # noqa: SLF001\n"
        "                store._publish(self._path, digest, moves=True)  # noqa: SLF001\n",
        "                store._publish(self._path, digest, moves=True)  # noqa: SLF001\n",
        (f"{STORES}::test_a_finished_session_is_on_the_disk_before_its_name_and_the_name_before_the_answer",),
    ),
    Guard(
        "no second try of a failed fsync",
        DURABLE,
        "src/touchmark/artifacts/local.py",
        "        if self._refusal is not None:\n            raise BusyError(self._refusal)\n",
        "        return\n",
        (f"{STORES}::test_a_failed_fsync_is_never_tried_again",),
    ),
    Guard(
        "fsync of each commit of SQLite",
        DURABLE,
        "src/touchmark/storage/dialect.py",
        '"synchronous=FULL"',
        '"synchronous=NORMAL"',
        (f"{CRASHES}::test_all_that_the_database_wrote_is_on_the_disk_before_it_is_acknowledged",),
    ),
    Guard(
        "bytes before rows",
        DURABLE,
        "src/touchmark/services/artifacts.py",
        "        stored = self._writer.commit()\n"
        "        with self._registry.track() as tx:\n"
        "            return record_artifact(tx, self._owner, self._path, stored)\n",
        "        self._writer.flush()\n"
        '        digest = Digest("sha256:" + self._writer._sha256.hexdigest())\n'
        "        stored = StoredBlob(digest, self._writer.size_bytes)\n"
        "        with self._registry.track() as tx:\n"
        "            made = record_artifact(tx, self._owner, self._path, stored)\n"
        "        self._writer.commit()\n"
        "        return made\n",
        (f"{CRASHES}::test_a_kill_at_every_fsync_link_and_rename_leaves_a_whole_registry[register]",),
    ),
    # ── bytes out ──
    Guard(
        "a roll-back in place of a commit",
        DURABLE,
        "src/touchmark/storage/dialect.py",
        '    if engine.dialect.name != "sqlite" and done.statusmessage != "COMMIT":\n',
        "    if False:\n",
        ("tests/services/test_prepared.py::test_a_commit_that_the_database_made_a_roll_back_is_no_success",),
    ),
    Guard(
        "one place of files for all homes on a database",
        DURABLE,
        "src/touchmark/ops/setup.py",
        "    if found == place:\n",
        "    if True:\n",
        ("tests/ops/test_setup.py::test_homes_on_one_database_name_one_place_of_files",),
    ),
    Guard(
        "digest of what the server sends",
        BYTES_OUT,
        "src/touchmark/artifacts/blobs.py",
        "    check_hash(hashing.digest(), digest)\n    check_size(seen_bytes, size_bytes)\n",
        "    check_size(seen_bytes, size_bytes)\n",
        (
            f"{STORES}::TestBlobStore::test_a_checked_stream_of_a_damaged_blob_is_cut_before_its_end",
            f"{SERVING}::test_a_damaged_blob_never_arrives_whole",
        ),
    ),
    Guard(
        "the last chunk is held back",
        BYTES_OUT,
        "src/touchmark/artifacts/blobs.py",
        "        if held is not None:\n            yield held\n        held = chunk\n",
        "        yield chunk\n",
        (f"{STORES}::TestBlobStore::test_a_checked_stream_of_a_damaged_blob_is_cut_before_its_end",),
    ),
    Guard(
        "digest of what a client fetches",
        BYTES_OUT,
        "src/touchmark/client/_downloads.py",
        "                    if seen.digest == file.digest and seen.size_bytes == file.size_bytes:\n",
        "                    if seen.size_bytes == file.size_bytes:\n",
        (f"{TRANSFER}::test_wrong_bytes_are_refused_and_nothing_of_them_is_left",),
    ),
    Guard(
        "digest of a manifest a client fetches",
        BYTES_OUT,
        "src/touchmark/client/_manifests.py",
        "    if found != digest:\n",
        "    if False:\n",
        (
            f"{TRANSFER}::test_a_manifest_that_is_not_the_one_resolved_is_refused",
            f"{CACHED}::test_a_manifest_that_was_changed_is_not_read",
        ),
    ),
    Guard(
        "paths of a pull",
        BYTES_OUT,
        "src/touchmark/client/_manifests.py",
        "    check_paths([file.path for file in files])\n",
        "",
        (f"{TRANSFER}::test_a_hostile_path_is_refused_before_anything_is_written",),
    ),
    Guard(
        "no link in the folder of a pull is followed",
        BYTES_OUT,
        "src/touchmark/client/_downloads.py",
        "        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):\n",
        "        if False:\n",
        (f"{TRANSFER}::test_a_link_in_the_target_is_not_followed",),
    ),
    Guard(
        "no link among the blobs is followed",
        BYTES_OUT,
        "src/touchmark/artifacts/local.py",
        'descriptor = os.open(f"{self.root}/{key}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)',
        'descriptor = os.open(f"{self.root}/{key}", os.O_RDONLY | os.O_CLOEXEC)',
        (f"{STORES}::test_a_symbolic_link_or_a_folder_among_the_blobs_is_no_blob",),
    ),
    # ── the cache ──
    Guard(
        "digest of a cached blob that is used again",
        CACHE,
        "src/touchmark/client/_cache.py",
        "            if not is_same(blob, file, stop.check):\n",
        "            if not has_size(blob, file):\n",
        (f"{CACHED}::test_a_blob_that_rotted_in_the_cache_gets_into_no_other_version",),
    ),
    Guard(
        "digest of a cached blob that is pulled",
        CACHE,
        "src/touchmark/client/_cache.py",
        "        if hash_file(part) == file.digest:\n",
        "        if True:\n",
        (f"{CACHED}::test_a_blob_that_rotted_in_the_cache_is_not_pulled",),
    ),
    Guard(
        "one process fetches a blob",
        CACHE,
        "src/touchmark/client/_cache.py",
        '        with open_lock(part.with_name(part.name + ".lock"), check=stop.check):\n',
        "        with suppress():\n",
        (
            "tests/client/test_moving_bytes.py::test_two_processes_that_fetch_the_same_version_at_once_move_its_bytes_once",
        ),
    ),
    Guard(
        "what is in use is locked",
        CACHE,
        "src/touchmark/client/_cache.py",
        "            _in_use[key] = take_lock(lock, shared=True)\n",
        "            lock.touch()\n",
        (f"{CACHED}::test_what_a_living_process_uses_stays",),
    ),
    Guard(
        "a cache of another user",
        CACHE,
        "src/touchmark/client/_cache.py",
        "        if found.st_uid != os.geteuid():\n",
        "        if False:\n",
        (f"{CACHED}::test_a_cache_of_another_user_is_refused",),
    ),
    Guard(
        "a cache that others can write to",
        CACHE,
        "src/touchmark/client/_cache.py",
        "        elif found.st_mode & 0o022:\n",
        "        elif False:\n",
        (f"{CACHED}::test_a_cache_that_others_can_write_to_is_refused_by_what_needs_it",),
    ),
    # ── sealed ──
    Guard(
        "files of a manifest in their order",
        SEALED,
        "src/touchmark/artifacts/manifests.py",
        "    return tuple(sorted(given, key=lambda file: file.path))\n",
        "    return tuple(given)\n",
        (f"{MANIFESTS}::test_the_order_files_come_in_never_matters",),
    ),
    Guard(
        "no key twice in a manifest",
        SEALED,
        "src/touchmark/artifacts/manifests.py",
        "    if len(made) != len(pairs):  # readers disagree",
        "    if False:  # readers disagree",
        (f"{MANIFESTS}::test_bytes_that_are_no_strict_json_are_refused",),
    ),
    Guard(
        "a digest has one size",
        SEALED,
        "src/touchmark/artifacts/manifests.py",
        "        if sizes.setdefault(file.digest, file.size_bytes) != file.size_bytes:\n",
        "        if False:\n",
        (f"{MANIFESTS}::test_one_digest_cannot_have_two_sizes",),
    ),
    Guard(
        "no path of a manifest climbs",
        SEALED,
        "src/touchmark/domain/paths.py",
        '        if segment in (".", ".."):\n',
        "        if False:\n",
        (f"{MANIFESTS}::test_a_bad_path_is_refused_with_its_reason",),
    ),
    Guard(
        "every blob of a manifest is stored",
        SEALED,
        "src/touchmark/services/registration.py",
        "    if missing is not None:\n        path = next(",
        "    if False:\n        path = next(",
        (f"{SEALING}::test_a_version_is_not_sealed_with_files_whose_bytes_are_not_stored",),
    ),
    Guard(
        "sealed files are not written or deleted",
        SEALED,
        "src/touchmark/protocols/mlflow/artifacts.py",
        "    if place is None or place.owner is None:\n        raise SealedError(path=text[:200])\n    return place, place.owner\n",
        '    owner = ArtifactOwner("run", "sealed")\n'
        "    return place or Place(text, text, owner), (place.owner if place else None) or owner\n",
        (f"{MLFLOW_FILES}::test_nothing_below_a_sealed_address_can_be_written_or_deleted",),
    ),
    Guard(
        "an unsealed version has no files",
        SEALED,
        "src/touchmark/services/versions.py",
        "    if stored is None:\n"
        '        reason = row.status_message or "it has no manifest."\n'
        "        raise VersionUnsealedError(name=row.name, version=row.number, reason=reason)\n",
        '    if stored is None:\n        return VersionFiles(row.digest or "", row.content_digest or "", ())\n',
        (f"{SEALING}::test_an_unsealed_version_never_looks_sealed",),
    ),
    Guard(
        "an unsealed version is not copied as a sealed one",
        SEALED,
        "src/touchmark/services/registration.py",
        "    if target.digest is not None and target.state == VersionState.READY:\n",
        "    if True:\n",
        (f"{SEALING}::test_an_unsealed_version_never_looks_sealed",),
    ),
    Guard(
        "a version is sealed once",
        SEALED,
        "src/touchmark/services/sealing.py",
        "        if row.state != VersionState.PENDING or row.deleted_at is not None:\n",
        "        if False:\n",
        (f"{SEALING}::test_a_version_is_sealed_once_and_never_when_it_is_deleted",),
    ),
    Guard(
        "head lock, PostgreSQL",
        LOG,
        "src/touchmark/storage/ledger.py",
        "_LOCKED_HEAD = Prepared(lambda engine: dialect.lock_rows(_HEAD, engine))\n",
        "_LOCKED_HEAD = Prepared(_HEAD)\n",
        (f"{ENTRIES}::test_writers_of_several_processes_wait_for_each_other[postgres]",),
    ),
    Guard(
        "a writer's lock from the beginning, SQLite",
        LOG,
        "src/touchmark/storage/dialect.py",
        'return "BEGIN IMMEDIATE" if write else "BEGIN DEFERRED"',
        'return "BEGIN DEFERRED"',
        (f"{ENTRIES}::test_writers_of_several_processes_wait_for_each_other[sqlite]",),
    ),
    Guard(
        "leaves and nodes are hashed apart",
        LOG,
        "src/touchmark/domain/ledger.py",
        'hashlib.sha256(b"\\x00" + data)',
        "hashlib.sha256(data)",
        ("tests/domain/test_ledger.py::test_the_published_roots_come_out",),
    ),
    Guard(
        "each entry's hash goes into the tree",
        LOG,
        "src/touchmark/storage/ledger.py",
        "    leaf_hash = hash_leaf(leaf)\n",
        '    leaf_hash = hash_leaf(b"")\n',
        (f"{CATALOGUE}::test_the_log_is_read_and_proved_by_what_it_hands_out",),
    ),
    Guard(
        "the head grows with the log",
        LOG,
        "src/touchmark/storage/ledger.py",
        '    tx.run(_INSERT_NODE, [{"level": node.level, "position": node.position, "hash": node.hash} for node in nodes])\n',
        "",
        (f"{CATALOGUE}::test_the_log_is_read_and_proved_by_what_it_hands_out",),
    ),
    Guard(
        "one entry for one change",
        LOG,
        "src/touchmark/storage/ledger.py",
        "    if tx.head is None or tx.recorded:\n",
        "    if tx.head is None:\n",
        (f"{ENTRIES}::test_a_change_makes_exactly_one_entry",),
    ),
    Guard(
        "times never go back",
        LOG,
        "src/touchmark/storage/ledger.py",
        "    tx.now = max(tx.now, row.last_at)\n",
        "",
        (f"{ENTRIES}::test_no_entry_is_earlier_than_the_one_before_though_the_clock_is_put_back",),
    ),
    Guard(
        "texts are salted and hashed beside the leaf",
        LOG,
        "src/touchmark/storage/ledger.py",
        "        yield secrets.token_bytes(SALT_BYTES)\n",
        "        yield bytes(SALT_BYTES)\n",
        (f"{ENTRIES}::test_the_same_words_twice_have_nothing_in_common_in_the_log",),
    ),
    Guard(
        "fsck compares the bytes of an entry with its hash",
        LOG,
        "src/touchmark/ops/fsck.py",
        "        if row.leaf_hash != computed:\n",
        "        computed = node if node is not None else computed\n        if False:\n",
        (f"{FSCK}::test_a_changed_cell_is_named",),
    ),
    Guard(
        "fsck compares rows with what the log makes",
        LOG,
        "src/touchmark/ops/fsck.py",
        "                    if not _is_same(value, expected) and not",
        "                    if False and not",
        (f"{FSCK}::test_a_changed_cell_is_named",),
    ),
    # ── numbers ──
    Guard(
        "a counter for each model",
        NUMBERS,
        "src/touchmark/services/registration.py",
        "        model_id, number = found.model_id, found.version_count + 1\n",
        "        model_id, number = found.model_id, found.version_count + 1\n"
        "        if found.deleted_at is None:\n"
        "            number = (models.get_model(tx, found.name).latest_version or 0) + 1\n",
        (MACHINE,),
    ),
    Guard(
        "a name created again goes on counting",
        NUMBERS,
        "src/touchmark/storage/projection.py",
        '                changes |= {"created_at": event.at, "created_by": event.actor.id}\n',
        '                changes |= {"created_at": event.at, "created_by": event.actor.id, "version_count": 0}\n',
        (MACHINE,),
    ),
    Guard(
        "a name that had versions is held for ever",
        NUMBERS,
        "src/touchmark/services/models.py",
        "        if row.version_count == 0:\n",
        "        if True:\n",
        ("tests/services/test_names.py::test_a_former_name_is_given_to_nothing_else",),
    ),
    Guard(
        "a held name is not given to another model",
        NUMBERS,
        "src/touchmark/services/models.py",
        "        if found.name != name:\n            raise NameTakenError(name=name, moved_to=found.name)\n        return None, []\n",
        "        return None, []\n",
        ("tests/services/test_names.py::test_a_former_name_is_given_to_nothing_else",),
    ),
    Guard(
        "an imported version takes the next number",
        NUMBERS,
        "src/touchmark/services/imports.py",
        "        if clean.number != row.version_count + 1:\n",
        "        if False:\n",
        ("tests/services/test_imports.py::test_versions_come_in_order_sealed_unsealed_and_deleted",),
    ),
    Guard(
        "an Idempotency-Key is looked up under the lock",
        RETRY,
        "src/touchmark/services/registration.py",
        "        known = idempotency.find_outcome(tx, who, key)\n"
        "        if known is not None:\n"
        "            return versions.get_by_id(tx, int(known))\n"
        "        if words.is_once",
        "        if words.is_once",
        (f"{WRITERS}::test_a_request_sent_twenty_times_with_one_key_has_one_effect",),
    ),
    Guard(
        "an Idempotency-Key belongs to one request",
        RETRY,
        "src/touchmark/storage/idempotency.py",
        "    if row.request_hash != key.request_hash:\n",
        "    if False:\n",
        (f"{CATALOGUE}::test_a_repeated_request_with_the_same_key_has_one_effect_and_one_answer",),
    ),
    Guard(
        "an Idempotency-Key belongs to one caller",
        RETRY,
        "src/touchmark/storage/idempotency.py",
        "K.principal == who.id, K.key == key.key",
        "K.key == key.key",
        (f"{ENTRIES}::test_a_key_is_the_callers_own",),
    ),
    Guard(
        "If-Match of an alias that is set",
        ALIASES,
        "src/touchmark/services/aliases.py",
        "        check_expected_move(name, alias, expected=expected, found=before.log_index if before else None)\n",
        "",
        (
            f"{CATALOGUE}::test_an_alias_moves_only_if_it_is_where_the_caller_saw_it",
            f"{CATALOGUE}::test_of_many_conditional_moves_at_once_exactly_one_is_made",
        ),
    ),
    Guard(
        "If-Match of an alias that is deleted",
        ALIASES,
        "src/touchmark/services/aliases.py",
        "        check_expected_move(name, alias, expected=expected, found=found.log_index if found else None)\n",
        "",
        (f"{CATALOGUE}::test_an_alias_moves_only_if_it_is_where_the_caller_saw_it",),
    ),
    Guard(
        "a condition that is not understood",
        ALIASES,
        "src/touchmark/wire.py",
        "    found = _QUOTED_INDEX.fullmatch(match.strip())\n    if found is None:\n        raise",
        "    found = _QUOTED_INDEX.fullmatch(match.strip())\n    if found is None:\n        return None\n        raise",
        (
            f"{CATALOGUE}::test_a_condition_that_is_no_etag_is_refused",
            "tests/protocols/test_wire.py::test_a_condition_that_is_not_understood_is_never_taken_for_none",
        ),
    ),
    Guard(
        "`latest` is no alias",
        ALIASES,
        "src/touchmark/domain/aliases.py",
        '    if text.lower() == "latest":\n',
        "    if False:\n",
        (f"{NAMES}::test_an_alias_may_not_be",),
    ),
    Guard(
        "a number is no alias",
        ALIASES,
        "src/touchmark/domain/aliases.py",
        "    if _NUMBER_LIKE.fullmatch(text):\n",
        "    if False:\n",
        (f"{NAMES}::test_an_alias_may_not_be",),
    ),
    Guard(
        "an alias points at a version that is ready",
        ALIASES,
        "src/touchmark/services/aliases.py",
        "        if target.state != VersionState.READY:\n",
        "        if False:\n",
        (f"{SEALING}::test_no_alias_points_at_a_version_that_waits_or_failed",),
    ),
    # ── fresh answers ──
    Guard(
        "a kept answer is as old as the log",
        FRESH,
        "src/touchmark/wire.py",
        "        if kept is None or kept[0] != log_size:\n",
        "        if kept is None:\n",
        ("tests/protocols/test_answers.py::test_an_answer_is_given_again_only_while_the_log_has_its_size",),
    ),
    Guard(
        "a look at the log that began before a request",
        FRESH,
        "src/touchmark/wire.py",
        "                asked, self._next = self._next, None\n",
        "                asked = self._next\n",
        ("tests/protocols/test_answers.py::test_all_who_ask_while_a_look_is_under_way_share_the_next_one",),
    ),
    # ── access ──
    Guard(
        "every service asks for permission",
        ACCESS,
        "src/touchmark/services/aliases.py",
        '        permissions.require(tx, who, Action.SET_ALIAS, Resource("model", name))\n',
        "",
        ("tests/house/test_services_ask_permission.py::test_every_service_asks_permission",),
    ),
    Guard(
        "reading sealed files by digest asks for permission",
        ACCESS,
        "src/touchmark/services/artifacts.py",
        '        permissions.require(tx, who, Action.READ_BLOB, Resource("manifest", digest))\n',
        "",
        ("tests/house/test_services_ask_permission.py::test_every_service_asks_permission",),
    ),
    Guard(
        "only what a version was sealed with is read by digest",
        ACCESS,
        "src/touchmark/services/artifacts.py",
        "    if row is None or row.version_state is None:\n",
        "    if row is None:\n",
        ("tests/services/test_artifacts.py::test_only_what_a_version_was_sealed_with_can_be_read_by_digest",),
    ),
    Guard(
        "a blob is read in its repository",
        ACCESS,
        "src/touchmark/services/blobs.py",
        "        size = rows.find_size(tx, canonical_path(repository, model_id), model_id, digest)\n",
        "        size = registry.blobs.find_size(digest)\n",
        (f"{OCI}::test_a_blob_of_one_repository_is_not_there_in_another",),
    ),
    Guard(
        "a blob is mounted from where it can be read",
        ACCESS,
        "src/touchmark/services/sessions.py",
        "        size_bytes = blobs.find_size(tx, canonical_path(source, model_id), model_id, digest)\n",
        "        size_bytes = registry.blobs.find_size(digest)\n",
        (f"{OCI}::test_a_blob_is_mounted_from_where_it_can_be_read_and_no_byte_moves",),
    ),
    Guard(
        "to know a digest is not to have its bytes",
        ACCESS,
        "src/touchmark/services/artifacts.py",
        "            if digest not in sizes:\n",
        "            sizes.setdefault(digest, registry.blobs.find_size(digest) or 0)\n            if False:\n",
        ("tests/services/test_artifacts.py::test_to_know_a_digest_is_not_to_have_its_bytes",),
    ),
    Guard(
        "an upload session belongs to its repository",
        ACCESS,
        "src/touchmark/services/sessions.py",
        "    if row.path is not None or row.repository != canonical_path(repository, find_model_id(tx, repository)):\n",
        "    if row.path is not None:\n",
        (f"{OCI}::test_an_upload_belongs_to_its_repository",),
    ),
    Guard(
        "an upload in parts belongs to its owner and path",
        ACCESS,
        "src/touchmark/services/uploads.py",
        "    if (row.repository, row.path) != (owner.repository, path):\n",
        "    if False:\n",
        ("tests/services/test_uploads.py::test_an_upload_is_for_one_owner_and_one_path",),
    ),
    Guard(
        "the socket is its owner's alone",
        ACCESS,
        "src/touchmark/server/serving.py",
        "        server.on_startup(lambda: uds.chmod(0o600))\n",
        "        pass\n",
        (f"{SERVING}::test_a_unix_socket_is_the_owners_alone_and_goes_with_the_server",),
    ),
    Guard(
        "files are their owner's alone",
        ACCESS,
        "src/touchmark/server/serving.py",
        "    os.umask(0o077)  # whatever",
        "    os.umask(0o022)  # whatever",
        (f"{SERVING}::test_whatever_the_server_writes_is_its_owners_alone",),
    ),
    # ── sources ──
    Guard(
        "no local path as a source",
        SOURCES,
        "src/touchmark/protocols/mlflow/sources.py",
        '    if scheme in {"", "file"} or len(scheme) == 1:\n',
        "    if False:\n",
        (f"{MLFLOW_SOURCES}::test_a_source_that_reaches_where_it_should_not_is_refused",),
    ),
    Guard(
        "no source that climbs",
        SOURCES,
        "src/touchmark/protocols/mlflow/sources.py",
        "    _check_climbs(text)\n    found",
        "    found",
        (f"{MLFLOW_SOURCES}::test_a_source_that_reaches_where_it_should_not_is_refused",),
    ),
    Guard(
        "no host of the caller's choice",
        SOURCES,
        "src/touchmark/protocols/mlflow/sources.py",
        "    if scheme in _HOST_ADDRESSED:\n",
        "    if False:\n",
        (f"{MLFLOW_SOURCES}::test_a_source_that_reaches_where_it_should_not_is_refused",),
    ),
    Guard(
        "a source belongs to the run that is named",
        SOURCES,
        "src/touchmark/protocols/mlflow/sources.py",
        "    if of_run is None or model_id or of_run[1] != run_id:\n",
        "    if of_run is None:\n",
        (f"{MLFLOW_SOURCES}::test_a_source_of_another_run_or_model_than_the_request_names_is_refused",),
    ),
    Guard(
        "no path of an artifact climbs",
        SOURCES,
        "src/touchmark/protocols/mlflow/artifacts.py",
        '    if ".." in parts:\n        _refuse(text, "it holds a .. segment")\n',
        "",
        (),
        second="services/artifacts.py asks domain/paths.py about every path again, which refuses the same parts",
    ),
    Guard(
        "the allow-list of addresses",
        SOURCES,
        "src/touchmark/domain/addresses.py",
        "        if self.find(address) is not None:\n            return None\n        if not self.prefixes:\n",
        "        if self.prefixes:\n            return None\n        if not self.prefixes:\n",
        (f"{SEALING}::test_an_address_on_the_list_waits_and_others_are_unsealed_or_refused",),
    ),
    Guard(
        "the IP addresses a name leads to",
        SOURCES,
        "src/touchmark/ops/addresses_http.py",
        '        if not may_connect(each, host=named if named == host else "", private=private):\n',
        "        if False:\n",
        (
            f"{IMPORTS}::test_a_listed_name_that_leads_to_this_machine_is_not_connected_to",
            "tests/ops/test_addresses.py::test_a_name_is_looked_up_once_and_what_it_leads_to_is_checked",
        ),
    ),
    Guard(
        "redirects of an import",
        SOURCES,
        "src/touchmark/ops/addresses_http.py",
        '        raise DeniedError(f"It leads to {_shown(url)!r}, which is on no list',
        "        return target, target.host, True\n"
        '        raise DeniedError(f"It leads to {_shown(url)!r}, which is on no list',
        (f"{IMPORTS}::test_a_redirect_leads_nowhere_that_is_not_listed",),
    ),
    Guard(
        "credentials go to their own server alone",
        SOURCES,
        "src/touchmark/ops/addresses_http.py",
        "        entry, is_own = self._entry, self._is_own(target)\n",
        "        entry, is_own = self._entry, True\n",
        (f"{IMPORTS}::test_credentials_go_to_their_own_server_and_to_no_other",),
    ),
    Guard(
        "what the gate passes on",
        SOURCES,
        "src/touchmark/ops/addresses_gate.py",
        "            named, private = self._check(address)\n",
        "            named, private = address.host, True\n",
        ("tests/ops/test_addresses.py::test_the_gate_refuses_everything_else",),
    ),
    Guard(
        "the gate's password",
        SOURCES,
        "src/touchmark/ops/addresses_gate.py",
        "len(given) != 1 or not _is_same(given[0], self._secret):\n",
        "len(given) > 1:\n",
        ("tests/ops/test_addresses.py::test_the_gate_is_for_whoever_has_its_password",),
    ),
    Guard(
        "where a webhook leads when it is used",
        SOURCES,
        "src/touchmark/services/webhooks.py",
        "            if not is_public(each):\n",
        "            if False:\n",
        (
            f"{WEBHOOKS}::test_a_host_that_is_not_public_is_refused_when_it_is_defined",
            f"{WEBHOOKS}::test_a_name_that_turns_to_the_inside_later_is_refused_when_it_is_used",
        ),
    ),
    Guard(
        "redirects of a webhook",
        SOURCES,
        "src/touchmark/events/webhooks.py",
        "    addresses = webhooks.find_addresses(address, rules)\n",
        "    addresses = hosts.look_up(address.host, address.port)\n",
        (f"{WEBHOOKS}::test_a_redirect_is_held_to_the_same_rules",),
    ),
    # ── limits ──
    Guard(
        "bytes of an upload",
        LIMITS,
        "src/touchmark/wire.py",
        "        if total > limit_bytes:\n            raise refusal\n",
        "",
        (
            f"{OCI}::test_an_upload_above_the_limit_leaves_nothing",
            f"{MLFLOW_FILES}::test_an_upload_beyond_the_limit_is_refused_before_and_while_it_comes",
        ),
    ),
    Guard(
        "bytes of an upload in several requests",
        LIMITS,
        "src/touchmark/protocols/oci/routes.py",
        "        if left_bytes < 0:\n            raise LimitExceededError(",
        "        if False:\n            raise LimitExceededError(",
        ("tests/acceptance/test_sessions.py::test_an_upload_may_not_grow_beyond_the_limit_and_what_it_has_stays",),
    ),
    Guard(
        "bytes of an upload in parts",
        LIMITS,
        "src/touchmark/services/uploads.py",
        "        if sum(part.size_bytes for part in chosen) > limit_bytes:\n",
        "        if False:\n",
        ("tests/services/test_uploads.py::test_an_upload_may_not_grow_beyond_its_limit",),
    ),
    Guard(
        "bytes of a body",
        LIMITS,
        "src/touchmark/wire.py",
        "    if max(size, expected) > limit_bytes:\n",
        "    if False:\n",
        (f"{OCI}::test_a_manifest_above_the_limit_is_too_large",),
    ),
    Guard(
        "depth of JSON",
        LIMITS,
        "src/touchmark/wire.py",
        "        if depth > JSON_DEPTH:\n",
        "        if False:\n",
        ("tests/protocols/test_wire.py::test_json_is_nested_as_deep_as_the_limit_and_no_deeper",),
    ),
    Guard(
        "lists and objects of JSON",
        LIMITS,
        "src/touchmark/wire.py",
        "    if len(brackets) > 2 * JSON_NODES:",
        "    if False:",
        ("tests/protocols/test_wire.py::test_lists_and_objects_are_counted_where_they_are_and_not_in_text",),
    ),
    Guard(
        "depth of a filter",
        LIMITS,
        "src/touchmark/domain/search.py",
        "        if depth > MAX_NESTING:\n",
        "        if False:\n",
        ("tests/domain/test_search.py::test_a_filter_at_a_limit_passes_and_one_above_is_refused",),
    ),
    Guard(
        "comparisons of a filter",
        LIMITS,
        "src/touchmark/domain/search.py",
        "        if self._comparisons > MAX_COMPARISONS:\n",
        "        if False:\n",
        ("tests/domain/test_search.py::test_a_filter_at_a_limit_passes_and_one_above_is_refused",),
    ),
    Guard(
        "header of a safetensors file",
        LIMITS,
        "src/touchmark/contents/safetensors.py",
        "    if length > HEADER_BYTES:\n",
        "    if False:\n",
        ("tests/contents/test_safetensors.py::test_a_header_above_8_mib_is_not_read",),
    ),
    Guard(
        "tensors that overlap",
        LIMITS,
        "src/touchmark/contents/safetensors.py",
        "        if begin < covered:\n",
        "        if False:\n",
        ("tests/contents/test_safetensors.py::test_a_lying_header_is_said_and_counts_nothing",),
    ),
    Guard(
        "steps of an ONNX walk",
        LIMITS,
        "src/touchmark/contents/onnx.py",
        "            self._file.budget.take_step()\n            tag, at",
        "            tag, at",
        ("tests/contents/test_onnx.py::test_a_swarm_of_tiny_fields_ends_at_the_budget",),
    ),
    Guard(
        "a member that inflates like a bomb",
        LIMITS,
        "src/touchmark/contents/archives.py",
        "        if limit_bytes > HEAD_BYTES and info.file_size > RATIO",
        "        if False and info.file_size > RATIO",
        ("tests/contents/test_archives_and_pickles.py::test_a_zip_bomb_is_not_inflated",),
    ),
    Guard(
        "directory of an archive",
        LIMITS,
        "src/touchmark/contents/archives.py",
        "        if length > DIRECTORY_BYTES:\n",
        "        if False:\n",
        ("tests/contents/test_archives_and_pickles.py::test_a_directory_above_its_limit_is_not_read",),
    ),
    Guard(
        "bytes read of one model",
        LIMITS,
        "src/touchmark/contents/reading.py",
        "        if length > self._bytes_left:\n",
        "        if False:\n",
        ("tests/contents/test_read_contents.py::test_headers_larger_than_the_budget_together_end_in_one_sentence",),
    ),
    # ── code ──
    Guard(
        "no pickle unless it is allowed",
        CODE,
        "src/touchmark/client/loaders/pickle_loader.py",
        "        if not allow_pickle:\n",
        "        if False:\n",
        ("tests/client/test_loaders.py::test_a_pickle_is_written_only_when_asked_for_by_name",),
    ),
    Guard(
        "what is sent back never runs in a browser",
        CODE,
        "src/touchmark/wire.py",
        '        "content-disposition": "attachment",\n',
        "",
        (f"{OCI}::test_a_blob_is_an_attachment_that_no_browser_runs",),
    ),
    # ── the web ──
    Guard(
        "Host is this machine",
        WEB,
        "src/touchmark/server/app.py",
        "    if not local and not _is_this_machine(host):\n",
        "    if False:\n",
        (
            f"{SETTINGS}::test_a_name_that_only_leads_here_may_not",
            f"{SERVING}::test_a_page_in_a_browser_reaches_nothing_under_another_name",
        ),
    ),
    Guard(
        "Origin of what changes something",
        WEB,
        "src/touchmark/server/app.py",
        "        if authority != host or not _is_this_machine(authority):\n",
        "        if False:\n",
        (f"{SETTINGS}::test_a_page_from_elsewhere_changes_nothing",),
    ),
    Guard(
        "two Host headers",
        WEB,
        "src/touchmark/server/app.py",
        "    if len(headers) != len(pairs):\n",
        "    if False:\n",
        (f"{SETTINGS}::test_of_two_headers_of_one_name_none_hides_the_other",),
    ),
    Guard(
        "an open server listens on loopback only",
        WEB,
        "src/touchmark/server/settings.py",
        "    if settings.uds is None and not is_loopback(settings.host):\n",
        "    if False:\n",
        (f"{SETTINGS}::test_a_server_that_asks_nobody_who_they_are_listens_on_loopback_only",),
    ),
    # ── upkeep ──
    Guard(
        "one process imports a version",
        UPKEEP,
        "src/touchmark/storage/leases.py",
        "    if row is not None and row.holder != holder and row.until >= tx.now:\n",
        "    if False:\n",
        ("tests/services/test_sealing.py::test_one_holder_has_a_version_until_its_lease_ends_or_is_given_back",),
    ),
    Guard(
        "hash of a backup's database",
        UPKEEP,
        "src/touchmark/ops/backup.py",
        "    return hashing.hexdigest() == about.database_sha256\n",
        "    return True\n",
        (f"{BACKUP}::test_a_damaged_backup_restores_nothing",),
    ),
    Guard(
        "head of a backup's log",
        UPKEEP,
        "src/touchmark/ops/restore.py",
        "    if (head.registry_id, head.log_size, head.log_root.hex()) != "
        "(about.registry_id, about.log_size, about.log_root):\n",
        "    if False:\n",
        (f"{BACKUP}::test_a_damaged_backup_restores_nothing",),
    ),
    Guard(
        "digest of a blob that is restored",
        UPKEEP,
        "src/touchmark/ops/backup.py",
        "        writer.commit(digest, size_bytes)\n",
        "        writer.commit()\n",
        (f"{BACKUP}::test_a_damaged_backup_restores_nothing",),
    ),
    Guard(
        "a home in use is not replaced",
        UPKEEP,
        "src/touchmark/ops/restore.py",
        '    if integrity.is_in_use(home / "registry.db"):\n        raise HomeBusyError(home=str(home))\n    return True\n',
        "    return True\n",
        (),
        second="it is asked once more, under the home's lock, before the home is renamed (`_take_place`)",
    ),
    Guard(
        "a home is replaced by force alone",
        UPKEEP,
        "src/touchmark/ops/restore.py",
        "    if not force:\n",
        "    if False:\n",
        (f"{BACKUP}::test_a_home_is_replaced_by_force_alone_and_kept",),
    ),
    Guard(
        "no path of a backup's database is a path on disk",
        UPKEEP,
        "src/touchmark/ops/restore.py",
        "                digest = parse_digest(name)  # before it becomes part of a path\n",
        "                digest = name\n",
        (f"{BACKUP}::test_a_digest_in_a_backup_that_would_be_a_path_is_never_opened",),
    ),
    Guard(
        "migration lock",
        UPKEEP,
        "src/touchmark/storage/migrations/__init__.py",
        "            hold_migration_lock(connection)\n",
        "",
        ("tests/migrations/test_migrations.py::test_several_processes_may_open_an_empty_database_at_once",),
    ),
    Guard(
        "a schema from the future",
        UPKEEP,
        "src/touchmark/storage/migrations/__init__.py",
        "    if found is not None and found > HEAD:\n",
        "    if False:\n",
        ("tests/migrations/test_migrations.py::test_a_schema_from_the_future_is_refused_and_left_alone",),
    ),
    Guard(
        "a home on a network file system",
        UPKEEP,
        "src/touchmark/ops/setup.py",
        "    if kind in _NETWORK:\n",
        "    if False:\n",
        ("tests/ops/test_setup.py::test_no_database_is_made_where_its_locks_would_not_hold",),
    ),
)


_HEAD = """# Guards

A promise is kept by a few lines of the source. This page lists them: each was taken out of a copy of the source, alone, and the
tests named beside it turned red, for what they assert and not because the code no longer ran. So none of these lines can be lost in a
change without somebody noticing, and no test named here passes whatever the code does.

`make soak` takes them out again, all of them; `make test` takes out a few, and checks that each text still stands in the source
exactly once and that each test exists. The list itself, with the text that is taken out and what stands there instead, is
[tests/soak/guards.py](../../tests/soak/guards.py); this page is made from it (`python -m tests.soak.guards > docs/reference/guards.md`).

Where two guards keep the same promise, one alone can be lost without harm, and no test can see it: then the other one is named.
"""


def render_reference() -> str:
    """Return docs/reference/guards.md."""
    lines = [_HEAD]
    for promise, guards in groupby(GUARDS, key=lambda guard: guard.promise):
        lines += [f"## {promise}\n", "| guard | where | tests that turn red without it |", "| --- | --- | --- |"]
        for guard in guards:
            tests = "<br>".join(_describe(test) for test in guard.tests)
            where = guard.file.removeprefix("src/touchmark/")
            lines.append(f"| {guard.name} | `{where}` | {tests or f'none: {guard.second}'} |")
        lines.append("")
    return "\n".join(lines)


def _describe(test: str) -> str:
    file, _, name = test.removeprefix("tests/").partition("::")
    return f"`{file}`: {name.rpartition('::')[2].removeprefix('test_').replace('_', ' ')}"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
