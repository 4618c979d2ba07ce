#!/usr/bin/env bash
# A third-party client against the simulated cluster: PyPI's proxmoxer logs in with a password and with a token, lists,
# creates, clones, snapshots, configures with a digest and destroys a guest.
#
#   .ci/proxmoxer.sh [PVE_SIM]     the binary; by default the one that cargo builds
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
server=''
finish() {
  status=$?
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [[ $# -gt 0 ]]; then
  binary=$1
else
  cargo build -q -p pve-sim
  binary=${CARGO_TARGET_DIR:-target}/debug/pve-sim
fi

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check 'proxmoxer>=2.2,<3' 'requests>=2.32,<3'

# Tasks take a twentieth of their genuine time, so that the client sees them run.
"$binary" --nodes 3 --guests 20 --seed 7 --listen 127.0.0.1:0 --time-scale 0.05 --out "$work/sim" >"$work/announced" &
server=$!
for _ in $(seq 100); do
  grep -q '^token-secret-file' "$work/announced" && break
  kill -0 "$server" || { echo "pve-sim ended early" >&2; exit 1; }
  sleep 0.1
done

"$work/venv/bin/python" - "$work/announced" <<'PY'
import sys
import time

from proxmoxer import ProxmoxAPI
from proxmoxer.core import ResourceException

said = dict(line.rstrip("\n").split(" ", 1) for line in open(sys.argv[1], encoding="utf-8"))
host = said["url"].split()[0].removeprefix("https://")
secret = open(said["token-secret-file"], encoding="utf-8").read().strip()
password = open(said["user-password-file"], encoding="utf-8").read().strip()
user, token = said["token-id"].split("!")

by_token = ProxmoxAPI(host, user=user, token_name=token, token_value=secret, verify_ssl=said["ca-file"])
by_password = ProxmoxAPI(host, user=said["user-id"], password=password, verify_ssl=said["ca-file"])


def wait(pve, upid):
    node = upid.split(":")[1]
    for _ in range(200):
        status = pve.nodes(node).tasks(upid).status.get()
        if status["status"] == "stopped":
            assert status["exitstatus"] == "OK", status
            return pve.nodes(node).tasks(upid).log.get()
        time.sleep(0.05)
    raise AssertionError(f"{upid} never ends")


for name, pve in (("token", by_token), ("password", by_password)):
    assert pve.version.get()["release"] == "8.4"
    nodes = sorted(node["node"] for node in pve.nodes.get())
    assert len(nodes) == 3, nodes
    node = pve.nodes(nodes[0])
    vmid = int(pve.cluster.nextid.get())
    before = len(pve.cluster.resources.get(type="vm"))

    wait(pve, node.qemu.post(vmid=vmid, name=f"by-{name}", memory=512, cores=1, scsi0="local-lvm:4", net0="virtio,bridge=vmbr0", tags="ci"))
    guest = node.qemu(vmid)
    copy = int(pve.cluster.nextid.get())
    wait(pve, guest.clone.post(newid=copy, name=f"copy-{name}", full=1))
    assert len(pve.cluster.resources.get(type="vm")) == before + 2
    clone = node.qemu(copy)

    wait(pve, clone.snapshot.post(snapname="before", description="by proxmoxer"))
    assert "before" in [snapshot["name"] for snapshot in clone.snapshot.get()]

    digest = clone.config.get()["digest"]
    clone.config.put(cores=2, description="changed", digest=digest)
    assert clone.config.get()["cores"] == 2
    try:
        clone.config.put(cores=3, digest=digest)
        raise AssertionError("a stale digest was taken")
    except ResourceException as refused:
        assert refused.status_code == 500 and "checksum mismatch" in str(refused), refused
    try:
        clone.config.put(nonsense=1)
        raise AssertionError("an unknown parameter was taken")
    except ResourceException as refused:
        assert refused.status_code == 400 and "nonsense" in refused.errors, refused

    wait(pve, clone.status.start.post())
    assert clone.status.current.get()["status"] == "running"
    wait(pve, clone.status.stop.post())
    wait(pve, clone.snapshot("before").rollback.post())
    assert clone.config.get().get("cores") == 1
    wait(pve, clone.snapshot("before").delete())
    for gone in (clone, guest):
        wait(pve, gone.delete())
    assert len(pve.cluster.resources.get(type="vm")) == before
    print(f"proxmoxer with a {name}: created, cloned, snapshotted, configured, destroyed")
PY
