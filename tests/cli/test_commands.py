"""What each command does, run as users run it, against a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

import touchmark
from tests.cli.running import COMMAND, Server, environment, find_port, run, run_json
from touchmark import errors
from touchmark.domain.errors import AliasNotFoundError, ModelNotFoundError

JSON = {"Content-Type": "application/json"}


def register(server: Server, folder: Path, name: str, *words: str) -> str:
    done = run("register", str(folder), name, *words, url=server.url)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run_well(*words: str, url: str) -> subprocess.CompletedProcess[str]:
    done = run(*words, url=url)
    assert done.returncode == 0, done.stderr
    return done


def test_a_registered_folder_comes_back_byte_for_byte(server: Server, folder: Path, tmp_path: Path) -> None:
    words = ["--tag", "team=risk", "--tag", "note=a=b", "--description", "first", "--alias", "champion"]

    assert register(server, folder, "risk.churn", *words) == "risk.churn/1"
    done = run("pull", "risk.churn@champion", url=server.url, cwd=tmp_path)

    assert done.stdout == "risk.churn-1\n"
    for file in ("weights.bin", "inner/notes.txt"):
        assert (tmp_path / "risk.churn-1" / file).read_bytes() == (folder / file).read_bytes()
    version = server.get("/models/risk.churn/versions/1")
    assert version["tags"] == {"team": "risk", "note": "a=b"}
    assert version["description"] == "first"
    assert version["aliases"] == ["champion"]


def test_pull_writes_over_nothing_unless_forced(server: Server, folder: Path, tmp_path: Path) -> None:
    register(server, folder, "pulled")
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "weights.bin").write_text("mine")

    refused = run("pull", "pulled/1", str(tmp_path / "dest"), url=server.url)

    assert refused.returncode == 5
    assert "--force" in refused.stderr
    assert (tmp_path / "dest" / "weights.bin").read_text() == "mine"
    assert run("pull", "pulled/1", str(tmp_path / "dest"), "--force", url=server.url).returncode == 0
    assert (tmp_path / "dest" / "weights.bin").read_bytes() == (folder / "weights.bin").read_bytes()


def test_pull_fetches_one_file_by_its_path(server: Server, folder: Path, tmp_path: Path) -> None:
    register(server, folder, "partly")

    done = run("pull", "partly/1/inner/notes.txt", url=server.url, cwd=tmp_path)

    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "partly-1").rglob("*.*")] == [
        "partly-1/inner/notes.txt"
    ], done.stderr


def test_damaged_bytes_are_neither_pulled_nor_backed_up_and_fsck_names_them(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    register(server, folder, "damaged")
    wanted = (folder / "weights.bin").read_bytes()
    [blob] = [path for path in (server.home / "blobs").rglob("*") if path.is_file() and path.read_bytes() == wanted]
    blob.chmod(0o600)
    blob.write_bytes(wanted[:-1] + bytes([wanted[-1] ^ 1]))

    pulled = run("pull", "damaged/1", str(tmp_path / "dest"), url=server.url)
    saved = run("backup", str(tmp_path / "backup.tar"), "--home", str(server.home))
    checked = run("fsck", "--deep", "--json", "--home", str(server.home))

    assert pulled.returncode != 0
    assert pulled.stdout == ""
    assert not (tmp_path / "dest" / "weights.bin").exists()
    assert saved.returncode == 7
    assert "touchmark fsck --deep" in saved.stderr
    assert not (tmp_path / "backup.tar").exists()
    assert checked.returncode == 4
    (finding,) = json.loads(checked.stdout)["findings"]
    assert (finding["kind"], finding["versions"]) == ("bytes", ["damaged/1"])
    assert "'weights.bin' of damaged/1" in finding["sentence"]
    blob.write_bytes(wanted)
    assert run("fsck", "--deep", "--home", str(server.home)).returncode == 0


def test_the_json_of_a_command_is_that_of_the_http_api(server: Server, folder: Path) -> None:
    register(server, folder, "shapes", "--tag", "a=b", "--alias", "champion")
    register(server, folder, "shapes")
    run("evaluate", "shapes/1", "auc=0.9", "worst=nan", "--dataset", "d", url=server.url)
    run("deprecate", "shapes/2", "--reason", "leaky", "--replaced-by", "shapes/1", url=server.url)
    base = "/models/shapes"

    assert run_json("show", "shapes", url=server.url) == server.get(base)
    assert run_json("show", "shapes@champion", url=server.url) == server.get(f"{base}/versions/1")
    assert run_json("show", "shapes/2", url=server.url) == server.get(f"{base}/versions/2")
    assert run_json("ls", "shapes", url=server.url) == server.get(f"{base}/versions")["items"]
    assert run_json("ls", "shap*", url=server.url) == server.get("/models?prefix=shap")["items"]
    assert run_json("resolve", "shapes@champion", url=server.url) == server.get("/resolve?ref=shapes@champion")
    assert run_json("alias", "ls", "shapes", url=server.url) == server.get(f"{base}/aliases")["items"]
    assert run_json("history", "shapes@champion", url=server.url) == server.get(f"{base}/history")["items"]
    found = server.get("/versions?filter=name%20%3D%20%27shapes%27")["items"]
    assert run_json("search", "name = 'shapes'", url=server.url) == found
    assert run_json("search", "--models", "name = 'shapes'", url=server.url) == [server.get(base)]
    diff = server.get("/diff?left=shapes/1&right=shapes/2")
    assert run_json("diff", "shapes/1", "shapes/2", url=server.url) == diff
    lineage = server.get("/lineage?ref=shapes/1&depth=2")
    assert run_json("lineage", "shapes/1", "--depth", "2", url=server.url) == lineage


def test_the_log_is_one_json_object_a_line(server: Server, folder: Path) -> None:
    register(server, folder, "logged", "--alias", "champion")

    done = run("log", "--model", "logged", "--json", url=server.url)

    assert [json.loads(line) for line in done.stdout.splitlines()] == server.get("/events?model=logged")["items"]
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["version.registered", "alias.set"]
    first = json.loads(done.stdout.splitlines()[0])["index"]
    rest = run("log", "--model", "logged", "--after", str(first), url=server.url)
    moved = ["alias.set", "logged", "1", "anonymous", "champion: none -> 1"]
    assert [line.split("\t")[2:] for line in rest.stdout.splitlines()] == [moved]
    assert len(run("log", "--limit", "2", url=server.url).stdout.splitlines()) == 2


def test_deleting_a_version_says_which_aliases_went_with_it(server: Server, folder: Path) -> None:
    register(server, folder, "gone", "--alias", "champion")

    said = run("rm", "gone/1", url=server.url).stderr

    assert "touchmark undelete gone/1 brings it back." in said
    assert "No version has the alias champion now: touchmark alias set gone champion VERSION" in said
    rows = run("log", "--model", "gone", url=server.url).stdout.splitlines()
    assert rows[-1].split("\t")[2] == "version.deleted"


def test_following_the_log_prints_what_comes_and_ends_when_interrupted(
    server: Server, folder: Path, registry: touchmark.Registry
) -> None:
    register(server, folder, "followed")
    words = [*COMMAND, "log", "--follow", "--json", "--model", "followed", "--url", server.url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "version.registered"
        registry.set_alias("followed", "champion", 1)
        assert json.loads(process.stdout.readline())["kind"] == "alias.set"
        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 130


def test_an_alias_moves_only_if_it_stands_where_it_was_seen(server: Server, folder: Path) -> None:
    register(server, folder, "moved", "--alias", "champion")
    register(server, folder, "moved")
    [seen] = run_json("alias", "ls", "moved", url=server.url)

    late = run("alias", "set", "moved", "champion", "2", "--if-match", str(seen["log_index"] - 1), url=server.url)
    new = run("alias", "set", "moved", "champion", "2", "--if-match", "-1", url=server.url)
    right = run("alias", "set", "moved", "champion", "2", "--if-match", str(seen["log_index"]), url=server.url)

    assert (late.returncode, new.returncode, right.returncode) == (4, 4, 0)
    assert "has moved since you looked" in late.stderr
    assert "alias ls" in late.stderr
    assert right.stdout == ""
    assert right.stderr == "moved@champion is now version 2.\n"
    moves = run("history", "moved", url=server.url).stdout.splitlines()
    assert [line.split("\t")[1:4] for line in moves] == [["champion", "1", "2"], ["champion", "", "1"]]
    assert run("alias", "rm", "moved", "champion", url=server.url).returncode == 0
    assert server.get("/models/moved/aliases")["items"] == []


def test_a_deleted_version_comes_back(server: Server, folder: Path) -> None:
    register(server, folder, "deleted")

    assert run("rm", "deleted/1", url=server.url).returncode == 0
    gone = run("resolve", "deleted/1", url=server.url)
    assert (gone.returncode, gone.stderr.splitlines()[-1]) == (4, "touchmark undelete NAME/VERSION brings it back.")
    assert run("ls", "deleted", url=server.url).stdout == ""
    assert [item["version"] for item in run_json("ls", "deleted", "--deleted", url=server.url)] == [1]
    assert run_json("show", "deleted/1", url=server.url)["deleted_at"] is not None
    assert run("undelete", "deleted/1", url=server.url).returncode == 0
    assert run("resolve", "deleted/1", url=server.url).returncode == 0
    assert run("undelete", "deleted/1", url=server.url).returncode == 4


def test_a_whole_model_is_deleted_only_when_that_was_said(
    server: Server, folder: Path, registry: touchmark.Registry
) -> None:
    register(server, folder, "whole")

    assert run("rm", "whole", url=server.url).returncode == 2
    assert registry.get_model("whole").version_count == 1
    assert run("rm", "whole", "--yes", url=server.url).returncode == 0
    with pytest.raises(ModelNotFoundError):
        registry.get_model("whole")


def test_a_renamed_model_answers_to_both_names(server: Server, folder: Path) -> None:
    register(server, folder, "name.before")

    assert run("rename", "name.before", "name.after", url=server.url).returncode == 0

    assert run_json("show", "name.before", url=server.url)["name"] == "name.after"
    assert run_json("resolve", "name.before/1", url=server.url)["moved_to"] == "name.after"


def test_tags_are_set_and_taken_away(server: Server, folder: Path) -> None:
    register(server, folder, "tagged", "--alias", "champion", "--tag", "old=1")

    assert run("tag", "tagged", "team=risk", "empty=", url=server.url).returncode == 0
    assert run("tag", "tagged@champion", "new=2", "--delete", "old", url=server.url).returncode == 0
    missing = run("tag", "tagged/1", "--delete", "old", url=server.url)

    assert server.get("/models/tagged")["tags"] == {"team": "risk", "empty": ""}
    assert server.get("/models/tagged/versions/1")["tags"] == {"new": "2"}
    assert missing.returncode == 3


def test_a_pinned_reference_names_the_digest_and_nothing_else(server: Server, folder: Path) -> None:
    register(server, folder, "pinned", "--alias", "champion")
    digest = server.get("/models/pinned/versions/1")["digest"]

    done = run("resolve", "pinned@champion", "--pinned", url=server.url)

    assert done.stdout == f"models:/pinned@{digest}\n"
    assert run_json("resolve", done.stdout.strip(), url=server.url)["version"] == 1


def test_a_deprecated_version_is_warned_of_once_and_still_pulled(server: Server, folder: Path, tmp_path: Path) -> None:
    register(server, folder, "stale")
    run("deprecate", "stale/1", "--reason", "trained on \x1b[31mleaked\x1b[0m labels", url=server.url)

    done = run("pull", "stale/1", url=server.url, cwd=tmp_path)

    assert done.returncode == 0
    assert done.stderr == "Warning: stale/1 is deprecated: trained on \\x1b[31mleaked\\x1b[0m labels.\n"


def test_search_finds_by_filter_words_and_order(server: Server, folder: Path) -> None:
    for number, auc in ((1, "0.7"), (2, "0.9"), (3, "0.8")):
        register(server, folder, "sought", "--description", f"flamingo {number}", "--tag", f"n={number}")
        run("evaluate", f"sought/{number}", f"auc={auc}", url=server.url)

    ordered = run("search", "metrics.auc > 0.75 AND name = 'sought'", "--order-by", "metrics.auc DESC", url=server.url)
    first = run("search", "--words", "flamingo", "--limit", "1", url=server.url)
    tagged = run("search", "--words", "flamingo", "tags.n = '1'", url=server.url)

    assert [line.split("\t")[1] for line in ordered.stdout.splitlines()] == ["2", "3"]
    assert [line.split("\t")[1] for line in first.stdout.splitlines()] == ["3"]
    assert [line.split("\t")[1] for line in tagged.stdout.splitlines()] == ["1"]


def test_diff_lists_what_differs(server: Server, folder: Path) -> None:
    register(server, folder, "differs", "--tag", "a=1")
    (folder / "weights.bin").write_bytes(b"other")
    (folder / "more.txt").write_text("new")
    register(server, folder, "differs", "--tag", "a=2", "--tag", "b=\x1b")
    run("evaluate", "differs/1", "auc=0.5", url=server.url)

    done = run("diff", "differs/1", "differs/2", url=server.url)

    assert [line.split("\t") for line in done.stdout.splitlines()] == [
        ["-", "metrics", "auc", "0.5", ""],
        ["+", "tags", "b", "", "\\x1b"],
        ["~", "tags", "a", "1", "2"],
        ["+", "files", "more.txt", "", "3"],
        ["~", "files", "weights.bin", "5000", "5"],
    ]


def test_lineage_leads_from_a_copy_to_what_it_was_made_from(server: Server, folder: Path) -> None:
    register(server, folder, "base")
    run("register", "models:/base/1", "copied", url=server.url)

    done = run("lineage", "copied/1", url=server.url)

    edges = [line.split("\t") for line in done.stdout.splitlines()]
    assert ["copied/1", "copy_of", "base/1"] in [edge[:3] for edge in edges]
    assert ["base/1", "logged_as", "logged_model model"] in [edge[:3] for edge in edges]


def test_a_prefix_lists_models_and_an_exact_name_its_versions(server: Server, folder: Path) -> None:
    register(server, folder, "tree")
    register(server, folder, "tree.oak")

    models = run("ls", "tree*", url=server.url).stdout.splitlines()
    below = run("ls", "tree.", url=server.url).stdout.splitlines()
    versions = run("ls", "tree", url=server.url).stdout.splitlines()

    assert [line.split("\t")[0] for line in models] == ["tree", "tree.oak"]
    assert [line.split("\t")[0] for line in below] == ["tree.oak"]
    assert [line.split("\t")[:2] for line in versions] == [["1", "READY"]]


def test_shared_options_are_understood_before_and_after_the_command(server: Server) -> None:
    before = run("--url", server.url, "--json", "ls", "nothing*")
    after = run("ls", "nothing*", "--url", server.url, "--json")

    assert before.stdout == after.stdout == "[]\n"


def test_a_home_is_opened_without_a_server(tmp_path: Path, folder: Path) -> None:
    home = str(tmp_path / "home")
    registered = run("register", str(folder), "at.home", "--home", home)
    listed = run("ls", "--json", TOUCHMARK_HOME=home)

    assert registered.stdout == "at.home/1\n", registered.stderr
    assert registered.stderr == ""
    assert [model["name"] for model in json.loads(listed.stdout)] == ["at.home"]
    assert listed.stderr == ""


def test_a_home_that_is_named_wins_over_a_server_in_the_environment(tmp_path: Path) -> None:
    touchmark.open(tmp_path / "home").close()

    done = run("ls", "--home", str(tmp_path / "home"), url="http://127.0.0.1:9")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", ["ls", "show net", "search", "alias ls net", "log", "rm net --yes", "fsck"])
def test_a_home_that_was_mistyped_is_not_begun(words: str, tmp_path: Path) -> None:
    done = run(*words.split(), "--home", str(tmp_path / "hom"))

    assert done.returncode == 9, done.stderr
    assert "there is no registry in it" in done.stderr
    assert not (tmp_path / "hom").exists()


@pytest.mark.parametrize(
    "words",
    [
        "fsck",
        "backup DEST",
        "restore DEST",
        "import mlflow --from sqlite:///x.db",
        "export mlflow --to http://127.0.0.1:9",
    ],
)
def test_what_works_on_a_home_takes_no_server_for_it(words: str, tmp_path: Path) -> None:
    given = [word.replace("DEST", str(tmp_path / "backup")) for word in words.split()]
    touchmark.open(tmp_path / ".touchmark").close()  # which the command would find

    said = run("--url", "http://127.0.0.1:9", *given, HOME=str(tmp_path))
    in_environment = run(*given, url="http://127.0.0.1:9", HOME=str(tmp_path))
    both = run("fsck", "--home", str(tmp_path / ".touchmark"), url="http://127.0.0.1:9")

    assert [said.returncode, in_environment.returncode] == [2, 2]
    assert "works on a home" in said.stderr
    assert "as --url names one" in said.stderr
    assert "as TOUCHMARK_URL names one" in in_environment.stderr
    assert both.returncode == 0, both.stderr
    assert f"The registry in {tmp_path / '.touchmark'}." in both.stderr


def test_settings_that_name_no_home_do_not_stand_for_one(tmp_path: Path) -> None:
    silent, telling = tmp_path / "silent.toml", tmp_path / "telling.toml"
    silent.write_text("port = 6001\n")
    telling.write_text(f'home = "{tmp_path / "home"}"\n')
    for home in ("home", ".touchmark"):
        touchmark.open(tmp_path / home).close()

    at = {"url": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    refused, done = (run("fsck", TOUCHMARK_CONFIG=str(file), **at) for file in (silent, telling))

    assert refused.returncode == 2
    assert "as TOUCHMARK_URL names one" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert f"The registry in {tmp_path / 'home'}." in done.stderr


def test_serve_takes_no_address_of_a_server_that_runs(tmp_path: Path) -> None:
    done = run("--url", "http://127.0.0.1:9", "serve", "--home", str(tmp_path / "home"), "--port", str(find_port()))

    assert done.returncode == 2, done.stderr
    assert "--url names one that runs already" in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("nofile net", 3), ("DIR team/net", 5), ("DIR net --alias latest", 5), ("models:/other/1 net", 9),
        ("other@champion net", 9), ("runs:/0123/model net", 9),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_begins_no_home(words: str, code: int, folder: Path, tmp_path: Path) -> None:
    given = [word.replace("DIR", str(folder)) for word in words.split()]

    done = run("register", *given, "--home", str(tmp_path / "home"))

    assert done.returncode == code, done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--upstream http://h:99999", "--public-url http://h:abc", "--artifacts here", "--import-from here",
        "--database here", "--database sqlite:////nowhere/registry.db", "--uds /nowhere/socket", "--max-upload-bytes -1",
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_server_is_told_in_one_line(words: str, tmp_path: Path) -> None:
    done = run("serve", "--home", str(tmp_path / "home"), "--port", str(find_port()), *words.split())

    assert done.returncode == 5, done.stderr
    assert re.fullmatch(r"Error: Invalid value for '[a-z_]+': .*\.\n", done.stderr), done.stderr


@pytest.mark.parametrize("alias", ["latest", "v3", "7", "no good", ""])
def test_an_alias_that_cannot_be_is_refused_before_anything_is_registered(
    alias: str, server: Server, folder: Path, registry: touchmark.Registry
) -> None:
    done = run("register", str(folder), "cli.untouched", "--alias", alias, url=server.url)

    assert done.returncode == 5, done.stderr
    with pytest.raises(errors.ModelNotFoundError):
        registry.get_model("cli.untouched")


@pytest.mark.parametrize("name", ["team/net", "a:b", "a@b", "", "m-" + "0" * 32])
def test_a_name_that_cannot_be_is_called_so_and_not_a_route(
    name: str, server: Server, folder: Path, registry: touchmark.Registry
) -> None:
    done = run("register", str(folder), name, url=server.url)

    assert done.returncode == 5, done.stderr
    assert "POST" not in done.stderr
    with pytest.raises(errors.InvalidNameError):
        registry.set_tags(name, {"a": "b"})


def test_who_stops_reading_ends_the_command_quietly(server: Server, folder: Path, registry: touchmark.Registry) -> None:
    register(server, folder, "long", "--description", "x" * 90_000)
    words = [*COMMAND, "show", "long/1", "--json", "--url", server.url]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert process.stderr.read() == ""
        assert process.wait(30) == 141
    with pytest.raises(AliasNotFoundError):
        registry.get_alias("long", "champion")


def test_interrupting_serve_ends_it_in_order(tmp_path: Path) -> None:
    socket = Path(f"/tmp/touchmark-{os.getpid()}-{time.monotonic_ns() % 10**9}")
    words = [*COMMAND, "serve", "--home", str(tmp_path / "home"), "--uds", str(socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert "is ready at unix://" in process.stdout.readline()
        assert run("ls", "--url", f"unix://{socket}").returncode == 0
        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 0
    assert not socket.exists()


def test_a_backup_restores_into_an_empty_home_only(server: Server, folder: Path, tmp_path: Path) -> None:
    register(server, folder, "saved")
    backup, home = str(tmp_path / "backup"), str(tmp_path / "home")

    first = run("backup", backup, "--home", str(server.home), "--json")
    again = run("backup", backup, "--home", str(server.home), "--json")
    restored = run("restore", backup, "--home", home)
    refused = run("restore", backup, "--home", home)
    forced = run("restore", backup, "--home", home, "--force", "--json")

    assert json.loads(first.stdout)["copied_blobs"] == json.loads(first.stdout)["blob_count"] > 0
    assert json.loads(again.stdout)["copied_blobs"] == 0
    assert (restored.returncode, refused.returncode, forced.returncode) == (0, 4, 0), forced.stderr
    assert Path(json.loads(forced.stdout)["moved_away"]).is_dir()
    assert "saved\t1\t1" in run("ls", "--home", home).stdout


# ── what is told of versions ─────────────────────────────────────────────────────────────────────────────────────────


def test_show_tells_where_a_version_comes_from_and_what_was_measured_later(
    server: Server, folder: Path, registry: touchmark.Registry
) -> None:
    with registry.start_run(experiment="origins") as run:
        run.log_params({"depth": 3})
        run.log_metrics({"auc": 0.9})
        run.log_model(folder, "net", registered_model_name="cli.told")
    first = run_well("evaluate", "cli.told/1", "auc=0.8", "--dataset", "autumn", url=server.url)
    run_well("evaluate", "cli.told/1", "loss=0.1", url=server.url)

    nan = [run_well("evaluate", "cli.told/1", "odd=nan", url=server.url).stderr for _ in range(2)]
    near = [run_well("evaluate", "cli.told/1", f"near=0.123456{n}", url=server.url).stderr for n in (71, 72)]
    lines = dict(line.split("\t", 1) for line in run_well("show", "cli.told/1", url=server.url).stdout.splitlines())

    assert "auc was 0.9: searches and lists now go by 0.8" in first.stderr
    assert "odd was" not in "".join(nan)
    assert "near was 0.12345671: searches and lists now go by 0.12345672;" in near[1]
    assert lines["evaluations"].startswith("1 on autumn=auc=0.8, 2=loss=0.1, 3=odd=nan, ")
    assert lines["evaluations"].endswith("6=near=0.12345672")
    assert lines["origin.params"] == "depth=3"
    assert lines["origin.run.experiment"] == "origins"
    assert lines["metrics"] == "auc=0.8, loss=0.1, near=0.12345672, odd=nan"


def test_a_list_tells_sealed_versions_from_others(server: Server, folder: Path, registry: touchmark.Registry) -> None:
    registry.create_model("cli.standing")
    body = json.dumps({"name": "cli.standing", "source": "s3://far/away"}).encode()
    with urlopen(Request(f"{server.url}/api/2.0/mlflow/model-versions/create", body, JSON)) as answer:
        assert answer.status == 200
    for _ in range(3):
        registry.register_model(folder, "cli.standing")
    registry.deprecate("cli.standing", 3, "old!")
    registry.delete_version("cli.standing", 4)

    rows = run_well("ls", "cli.standing", "--deleted", url=server.url).stdout.splitlines()

    assert [row.split("\t")[:2] for row in rows] == [
        ["4", "DELETED"], ["3", "DEPRECATED"], ["2", "READY"], ["1", "UNSEALED"],
    ]  # fmt: skip


def test_prompts_and_tags_of_mlflows_clients_are_not_among_models(server: Server, registry: touchmark.Registry) -> None:
    registry.create_model("cli.prompts.text", tags={"mlflow.prompt.is_prompt": "true"})
    registry.create_model("cli.prompts.net", tags={"mlflow.source": "x", "team": "risk"})

    plain = run_well("ls", "cli.prompts.", url=server.url).stdout
    everything = run_well("ls", "cli.prompts.", "--prompts", url=server.url).stdout

    assert "cli.prompts.text" not in plain
    assert "team=risk" in plain
    assert "mlflow." not in plain
    assert "cli.prompts.text" in everything


def test_prompts_are_searched_only_when_asked_for(server: Server, folder: Path, registry: touchmark.Registry) -> None:
    tag = [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "_mlflow_prompt_type", "value": "text"}]
    registry.create_model("cli.asked.text", tags={each["key"]: each["value"] for each in tag})
    for _ in range(2):
        registry.register_model(folder, "cli.asked.net")
    body = json.dumps({"name": "cli.asked.text", "source": "dummy-source", "tags": tag}).encode()
    with urlopen(Request(f"{server.url}/api/2.0/mlflow/model-versions/create", body, JSON)) as answer:
        assert answer.status == 200

    def search(*words: str) -> list[list[str]]:
        rows = run_well("search", "name LIKE 'cli.asked.%'", *words, url=server.url).stdout.splitlines()
        return [row.split("\t") for row in rows]

    assert [row[:3] for row in search()] == [["cli.asked.net", "2", "READY"], ["cli.asked.net", "1", "READY"]]
    assert [row[0] for row in search("--limit", "1")] == ["cli.asked.net"]
    assert [row[0] for row in search("--models")] == ["cli.asked.net"]
    everything = search("--prompts")
    assert everything[0][:3] == ["cli.asked.text", "1", "PROMPT"]
    assert len(everything) == 3
    assert not any("mlflow" in cell for row in everything for cell in row)
    assert len(search("--prompts", "--limit", "2")) == 2
    assert len(search("--prompts", "--models")) == 2


def test_a_model_whose_versions_are_deleted_says_how_to_see_them(server: Server, folder: Path) -> None:
    run_well("register", str(folder), "cli.emptied", url=server.url)
    run_well("rm", "cli.emptied/1", url=server.url)

    assert "--deleted lists deleted ones" in run_well("ls", "cli.emptied", url=server.url).stderr
    assert run_well("ls", "cli.emptied", "--deleted", url=server.url).stdout.startswith("1\tDELETED")


def test_what_changes_nothing_says_so(server: Server, folder: Path) -> None:
    for _ in range(2):
        run_well("register", str(folder), "cli.again", url=server.url)
    run_well("rm", "cli.again/1", url=server.url)

    assert "deleted already" in run_well("rm", "cli.again/1", url=server.url).stderr
    assert "called that already" in run_well("rename", "cli.again", "cli.again", url=server.url).stderr
    run_well("deprecate", "cli.again/2", "--reason", "leaked labels", url=server.url)
    assert "is deprecated: leaked labels.\n" in run_well("resolve", "cli.again/2", url=server.url).stderr
    latest = run("resolve", "cli.again/latest", url=server.url)
    assert latest.returncode == 3
    assert "no latest version: none is ready, undeleted and undeprecated" in latest.stderr
    number = run("alias", "set", "cli.again", "champion", "two", url=server.url)
    assert number.returncode == 2
    assert "'two' is no version's number" in number.stderr


def test_a_server_that_is_not_touchmark_is_called_so(tmp_path: Path, folder: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        asked, sent = run("ls", url=url), run("register", str(folder), "net", url=url)
        other.shutdown()
        thread.join()

    for done in (asked, sent):
        assert done.returncode != 0
        assert "It was not Touchmark that answered" in done.stderr


def test_the_address_of_a_server_tells_what_answers_there(server: Server) -> None:
    with urlopen(server.url + "/") as answer:
        text = answer.read().decode()

    assert answer.headers["content-type"].startswith("text/plain")
    assert text.startswith("Touchmark ")
    for place in re.findall(r"/[\w./]+\.json|/health|/v2", text):
        with urlopen(server.url + place + ("/" if place == "/v2" else "")) as answer:
            assert answer.status == 200
