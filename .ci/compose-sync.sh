#!/usr/bin/env bash
# A simulated cluster synced into the Neo4j of docker-compose.yml, as a user would: the release binaries, a configuration, a report.
# Needs NEO4J_URI and NEO4J_PASSWORD.
set -euo pipefail
work=$(mktemp -d)
sim=
finish() {
  if [[ -n $sim ]]; then kill "$sim" 2>/dev/null || true; wait "$sim" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

target/release/pve-sim --nodes 3 --guests 100 --seed 7 --listen 127.0.0.1:0 --out "$work/sim" >"$work/sim.out" &
sim=$!
for _ in $(seq 100); do
  grep -q '^token-secret-file' "$work/sim.out" && break
  kill -0 "$sim"
  sleep 0.1
done
value() { awk -v key="$1" '$1 == key { print $2; exit }' "$work/sim.out"; }

(umask 077 && printf '%s' "$NEO4J_PASSWORD" >"$work/neo4j.password")
cat >"$work/pvegraph.toml" <<T
[store]
uri = "$NEO4J_URI"
password_file = "neo4j.password"

[[clusters]]
endpoints = ["$(value url)"]
token_id = "$(value token-id)"
token_secret_file = "$(value token-secret-file)"
ca_file = "$(value ca-file)"
T
pvegraph() { XDG_RUNTIME_DIR=$work target/release/pvegraph --config "$work/pvegraph.toml" "$@"; }
pvegraph doctor
pvegraph sync
guests=$(pvegraph query 'MATCH (v:ProxmoxVM) RETURN count(v) AS guests' -o csv | tail -n 1)
[[ $guests == 100 ]] || { echo "compose-sync: $guests guests in the graph instead of 100" >&2; exit 1; }
pvegraph report run R1
pvegraph sync -o csv | awk -F, 'NR > 1 && ($3 || $4 || $6 || $7) { print "compose-sync: a second run changed " $0; bad = 1 } END { exit bad }'
