#!/usr/bin/env python3
"""Computes, from recorded PVE answers alone, the graph that a sync of them must produce.

    expected_graph.py ESTATE.jsonl [--unseen-by NAME=OTHER.jsonl]... > out.json

Deliberately shares nothing with the program: no code, no generated table. Each rule and where it comes
from is in README.md beside this file. Standard library only.
"""

import argparse
import json
import re
import sys

MIB = 1024 * 1024

# (label, properties) as the contract lists them, without the stamps, plus what the design adds.
PROPERTIES = {
    "ProxmoxCluster": "id name version quorate nodes_online cluster_id",
    "ProxmoxNode": "id name cluster_id ip status uptime cpu_count cpu_usage memory_total memory_used disk_total disk_used",
    "ProxmoxVM": "id vmid name node cluster_id type status template cpu_cores cpu_sockets memory disk_size uptime tags",
    "ProxmoxDisk": "id disk_id vmid storage size backup cache cluster_id kind attached",
    "ProxmoxNetworkInterface": "id net_id vmid bridge mac_address model firewall vlan_tag cluster_id",
    "ProxmoxSnapshot": "id name vmid cluster_id parent created_at with_memory current",
    "ProxmoxStorage": "id name cluster_id type content_types shared enabled total used available",
    "ProxmoxBackupJob": "id cluster_id enabled storage schedule mode all pool vmids exclude comment",
}
RELATIONSHIPS = (
    "CONTAINS_NODE HOSTS_VM HAS_DISK HAS_NETWORK_INTERFACE SNAPSHOT_OF PARENT_SNAPSHOT STORED_ON AVAILABLE_ON BACKS_UP"
    " BACKS_UP_TO INCLUDES_DISK"
).split()

QEMU_DISK = re.compile(r"(?:ide|sata|scsi|virtio)\d+|efidisk0|tpmstate0|unused\d+")
LXC_DISK = re.compile(r"rootfs|mp\d+|unused\d+")
NET = re.compile(r"net\d+")
CLOUD_INIT = re.compile(r"vm-\d+-cloudinit(?:\.\w+)?$")


# --- reading ---------------------------------------------------------------------------------------------------------


class Estate:
    """One recording: path -> (status, data)."""

    def __init__(self, file):
        self.file = file
        self.answers = {}
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                answer = json.loads(line)
                if answer["path"] in self.answers:
                    raise SystemExit(f"{file}: {answer['path']} is recorded twice")
                body = answer["json"] if isinstance(answer["json"], dict) else {}
                self.answers[answer["path"]] = (answer["status"], answer["reason"], body.get("data"))

    def get(self, path):
        """The data of a path; an error where it is not recorded or not a 200."""
        if path not in self.answers:
            raise SystemExit(f"{self.file}: {path} is not recorded")
        status, reason, data = self.answers[path]
        if status != 200:
            raise SystemExit(f"{self.file}: {path} answers {status} {reason}")
        return data

    def maybe(self, path):
        """The data of a path, or None where it is refused or not recorded."""
        status, _, data = self.answers.get(path, (None, None, None))
        return data if status == 200 else None


def boolean(value, default=False):
    """0/1 of the API, and the words that property strings allow."""
    if value is None:
        return default
    word = str(value).strip().lower()
    if word in ("1", "yes", "on", "true"):
        return True
    if word in ("0", "no", "off", "false"):
        return False
    raise SystemExit(f"not a boolean: {value!r}")


def property_string(text, default_key):
    """`first,key=value,…`: the element without `=` gets the name `default_key`."""
    out = {}
    for part in str(text).split(","):
        key, sign, value = part.partition("=")
        if sign:
            out[key.strip()] = value.strip()
        elif part.strip():
            out[default_key] = part.strip()
    return out


def size_in_bytes(text):
    """PVE sizes: a number with K, M, G or T (powers of 1024), or bytes."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not found:
        raise SystemExit(f"not a size: {text!r}")
    factor = 1024 ** " KMGT".index(found[2] or " ")
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def words(text):
    """A PVE list (`;`, `,` or blanks between) in the order given, each once."""
    return list(dict.fromkeys(re.findall(r"[^\s;,]+", text or "")))


# --- the nouns -------------------------------------------------------------------------------------------------------


def disk(key, text, guest_type, vmid, cluster):
    """The disk of one configuration key, or None for what is no disk (CD-ROM, `none`, cloud-init drive)."""
    qemu = guest_type == "qemu"
    options = property_string(text, "file" if qemu else "volume")
    volume = options.get("file" if qemu else "volume")
    if volume in (None, "none", "cdrom") or options.get("media") == "cdrom" or CLOUD_INIT.search(volume):
        return None
    attached = not key.startswith("unused")
    if not attached:
        kind = "unused"
    elif qemu:
        kind = {"efidisk0": "efi", "tpmstate0": "tpm"}.get(key, "disk")
    else:
        kind = "rootfs" if key == "rootfs" else "mount"
    if kind == "unused":
        backup = False
    elif kind == "rootfs":
        backup = True
    else:
        backup = boolean(options.get("backup"), default=qemu)
    return {
        "id": f"{vmid}:{key}",
        "disk_id": key,
        "vmid": vmid,
        "cluster_id": cluster,
        "storage": None if volume.startswith("/") else volume.partition(":")[0],
        "size": size_in_bytes(options.get("size")),
        "backup": backup,
        "cache": options.get("cache", "none") if qemu else None,
        "kind": kind,
        "attached": attached,
    }


def interface(key, text, guest_type, vmid, cluster):
    """The NIC of one `netN`: QEMU writes `MODEL=MAC`, LXC `hwaddr=` and `type=`."""
    options = property_string(text, "model")
    if guest_type == "lxc":
        model, mac = options.get("type", "veth"), options.get("hwaddr")
    elif "model" in options:
        model, mac = options["model"], options.get("macaddr")
    else:
        first = str(text).split(",")[0]
        model, _, mac = first.partition("=")
    tag = options.get("tag")
    return {
        "id": f"{vmid}:{key}",
        "net_id": key,
        "vmid": vmid,
        "cluster_id": cluster,
        "bridge": options.get("bridge"),
        "mac_address": mac.upper() if mac else None,
        "model": model,
        "firewall": boolean(options.get("firewall")),
        "vlan_tag": int(tag) if tag is not None else None,
    }


def snapshots(rows, vmid, cluster):
    """The guest's snapshots; the row `current` is the guest itself, and says which of them it came from."""
    now = next(r for r in rows if r["name"] == "current")
    return [
        {
            "id": f"{vmid}:{row['name']}",
            "name": row["name"],
            "vmid": vmid,
            "cluster_id": cluster,
            "parent": row.get("parent"),
            "created_at": row["snaptime"] or None,
            "with_memory": boolean(row.get("vmstate")),
            "current": row["name"] == now.get("parent"),
        }
        for row in rows if row is not now
    ]


def guest(resource, config, qmpstatus, disks, cluster):
    """The guest, from its row in `/cluster/resources` and its configuration."""
    qemu = resource["type"] == "qemu"
    memory = property_string(config.get("memory", 512), "current")["current"]
    status = resource.get("status", "unknown")
    if qmpstatus == "paused":
        status = "paused"
    return {
        "id": f"{resource['node']}:{resource['vmid']}",
        "vmid": resource["vmid"],
        "name": config.get("name" if qemu else "hostname"),
        "node": resource["node"],
        "cluster_id": cluster,
        "type": resource["type"],
        "status": status,
        "template": boolean(config.get("template")),
        "cpu_cores": int(config.get("cores", 1 if qemu else resource["maxcpu"])),
        "cpu_sockets": int(config.get("sockets", 1)) if qemu else None,
        "memory": int(memory) * MIB,
        "disk_size": sum(d["size"] or 0 for d in disks if d["attached"]),
        "uptime": resource.get("uptime"),
        "tags": words(config.get("tags")),
    }


def node(resource, ip, cluster):
    """The node, from its row in `/cluster/resources`; its address is only in `/cluster/status`."""
    cpu = resource.get("cpu")
    return {
        "id": resource["node"],
        "name": resource["node"],
        "cluster_id": cluster,
        "ip": ip,
        "status": resource.get("status", "unknown"),
        "uptime": resource.get("uptime"),
        "cpu_count": resource.get("maxcpu"),
        "cpu_usage": None if cpu is None else float(cpu),
        "memory_total": resource.get("maxmem"),
        "memory_used": resource.get("mem"),
        "disk_total": resource.get("maxdisk"),
        "disk_used": resource.get("disk"),
    }


def storage(definition, per_node, online, cluster):
    """The storage, and what AVAILABLE_ON says per allowed node; `per_node` is node -> row of `/nodes/{n}/storage`."""
    allowed = words(definition.get("nodes")) or sorted(per_node)
    available_on = {}
    for name in sorted(allowed):
        if name not in per_node:
            continue
        row = per_node[name]
        active = boolean(row.get("active"))
        # PVE fills an inactive storage with zeros, which are no measurement.
        available_on[name] = {
            "active": active,
            "total": row["total"] if active else None,
            "used": row["used"] if active else None,
            "available": row["avail"] if active else None,
        }
    shared = boolean(definition.get("shared"))
    counted = [a for name, a in available_on.items() if a["active"] and name in online]
    if shared:
        counted = counted[:1]
    return {
        "id": definition["storage"],
        "name": definition["storage"],
        "cluster_id": cluster,
        "type": definition["type"],
        "content_types": sorted(words(definition.get("content"))),
        "shared": shared,
        "enabled": not boolean(definition.get("disable")),
        **{key: sum(a[key] for a in counted) if counted else None for key in ("total", "used", "available")},
    }, available_on


def backup_job(job, cluster):
    """The backup job as its definition has it; nothing is made up for what it leaves to the nodes' defaults."""
    return {
        "id": job["id"],
        "cluster_id": cluster,
        "enabled": boolean(job.get("enabled"), default=True),
        "storage": job.get("storage"),
        "schedule": job.get("schedule"),
        "mode": job.get("mode"),
        "all": boolean(job.get("all")),
        "pool": job.get("pool"),
        "vmids": sorted(map(int, words(job.get("vmid")))),
        "exclude": sorted(map(int, words(job.get("exclude")))),
        "comment": job.get("comment"),
    }


# --- the graph -------------------------------------------------------------------------------------------------------


def build(estate):
    """(nodes by label, relationships by type) of one recording."""
    nodes = {label: [] for label in PROPERTIES}
    links = {kind: [] for kind in RELATIONSHIPS}
    status = estate.get("/cluster/status")
    resources = estate.get("/cluster/resources")

    quorum = next((row for row in status if row["type"] == "cluster"), None)
    members = {row["name"]: row for row in status if row["type"] == "node"}
    cluster = quorum["name"] if quorum else f"standalone-{next(iter(members))}"
    nodes["ProxmoxCluster"].append({
        "id": cluster,
        "name": cluster,
        "cluster_id": cluster,
        "version": estate.get("/version")["version"],
        "quorate": boolean(quorum["quorate"]) if quorum else True,
        "nodes_online": sum(boolean(m.get("online")) for m in members.values()) if quorum else 1,
    })

    online = set()
    for row in (r for r in resources if r["type"] == "node"):
        member = members.get(row["node"], {})
        nodes["ProxmoxNode"].append(node(row, member.get("ip"), cluster))
        links["CONTAINS_NODE"].append([cluster, row["node"], {}])
        if boolean(member.get("online")):
            online.add(row["node"])

    storage_rows = {n: {r["storage"]: r for r in estate.get(f"/nodes/{n}/storage")} for n in online}
    for definition in estate.get("/storage"):
        name = definition["storage"]
        per_node = {n: rows[name] for n, rows in storage_rows.items() if name in rows}
        made, available_on = storage(definition, per_node, online, cluster)
        nodes["ProxmoxStorage"].append(made)
        links["AVAILABLE_ON"] += [[name, n, props] for n, props in available_on.items()]
    storages = {s["id"] for s in nodes["ProxmoxStorage"]}

    qmpstatus = {}
    for n in online:
        for row in estate.get(f"/nodes/{n}/qemu?full=1"):
            qmpstatus[row["vmid"]] = row.get("qmpstatus")

    guest_ids, disk_ids = {}, set()
    for row in (r for r in resources if r["type"] in ("qemu", "lxc")):
        kind, vmid = row["type"], row["vmid"]
        config = estate.get(f"/nodes/{row['node']}/{kind}/{vmid}/config?current=1")
        pattern = QEMU_DISK if kind == "qemu" else LXC_DISK
        found = [disk(k, v, kind, vmid, cluster) for k, v in config.items() if pattern.fullmatch(k)]
        disks = [d for d in found if d]
        nics = [interface(k, v, kind, vmid, cluster) for k, v in config.items() if NET.fullmatch(k)]
        taken = snapshots(estate.get(f"/nodes/{row['node']}/{kind}/{vmid}/snapshot"), vmid, cluster)
        made = guest(row, config, qmpstatus.get(vmid), disks, cluster)
        guest_ids[vmid] = made["id"]
        disk_ids.update(d["id"] for d in disks)
        nodes["ProxmoxVM"].append(made)
        nodes["ProxmoxDisk"] += disks
        nodes["ProxmoxNetworkInterface"] += nics
        nodes["ProxmoxSnapshot"] += taken
        links["HOSTS_VM"].append([row["node"], made["id"], {}])
        links["HAS_DISK"] += [[made["id"], d["id"], {}] for d in disks]
        links["HAS_NETWORK_INTERFACE"] += [[made["id"], n["id"], {}] for n in nics]
        links["SNAPSHOT_OF"] += [[s["id"], made["id"], {}] for s in taken]
        links["PARENT_SNAPSHOT"] += [[s["id"], f"{vmid}:{s['parent']}", {}] for s in taken if s["parent"]]
        links["STORED_ON"] += [[d["id"], d["storage"], {}] for d in disks if d["storage"] in storages]

    for definition in estate.get("/cluster/backup"):
        job = backup_job(definition, cluster)
        nodes["ProxmoxBackupJob"].append(job)
        if job["storage"] in storages:
            links["BACKS_UP_TO"].append([job["id"], job["storage"], {}])
        for covered in estate.get(f"/cluster/backup/{job['id']}/included_volumes")["children"]:
            links["BACKS_UP"].append([job["id"], guest_ids[covered["id"]], {}])
            for volume in covered.get("children", []):
                if volume["id"] not in disk_ids:
                    print(f"{job['id']}: volume {volume['id']} is no disk of the graph", file=sys.stderr)
                    continue
                props = {"included": boolean(volume["included"]), "reason": volume["reason"]}
                links["INCLUDES_DISK"].append([job["id"], volume["id"], props])
    return nodes, links


def natural(text):
    """Sort key under which 9 precedes 10 and scsi2 precedes scsi10."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", str(text)) if p]


def put_in_order(nodes, links):
    """Stable order; and every row must have exactly the properties of its label, every end must exist."""
    ids = {}
    for label, rows in nodes.items():
        rows.sort(key=lambda r: natural(r["id"]))
        ids[label] = [r["id"] for r in rows]
        assert len(set(ids[label])) == len(rows), f"{label}: an id twice"
        for row in rows:
            assert set(row) == set(PROPERTIES[label].split()), f"{label} {row['id']}: wrong properties"
    every = {i for rows in ids.values() for i in rows}
    for kind, rows in links.items():
        rows.sort(key=lambda r: (natural(r[0]), natural(r[1])))
        ends = [(a, b) for a, b, _ in rows]
        assert len(set(ends)) == len(ends), f"{kind}: a pair twice"
        assert all(a in every and b in every for a, b in ends), f"{kind}: an end is missing"


# --- questions -------------------------------------------------------------------------------------------------------


def up(*values):
    """Cypher's ascending order: null is last."""
    return tuple((v is None, v if v is not None else 0) for v in values)


def down(value):
    """Cypher's descending order of a number: null is first."""
    return (value is not None, -value if value is not None else 0)


def percent(used, total):
    return None if used is None or total is None else used * 100.0 / total


def above(value, limit):
    return value is not None and value > limit


def contract_queries(nodes, links):
    """The contract's eight queries, worked out by hand, not by a query engine. Ties keep the order of the nodes."""
    vms, machines = nodes["ProxmoxVM"], nodes["ProxmoxNode"]
    vm_of = {v["id"]: v for v in vms}
    disk_of = {d["id"]: d for d in nodes["ProxmoxDisk"]}
    nic_of = {i["id"]: i for i in nodes["ProxmoxNetworkInterface"]}
    storage_of = {s["id"]: s for s in nodes["ProxmoxStorage"]}
    stored_on = [(disk_of[d], storage_of[s]) for d, s, _ in links["STORED_ON"]]
    disks_of = {v["id"]: [] for v in vms}
    for v, d, _ in links["HAS_DISK"]:
        disks_of[v].append(disk_of[d])
    out = {}

    out["1"] = [
        {"v.name": v["name"], "v.node": v["node"], "v.memory": v["memory"], "v.cpu_cores": v["cpu_cores"]}
        for v in sorted(vms, key=lambda v: down(v["memory"]))
        if v["status"] == "running" and v["template"] is False
    ]
    out["2"] = [
        {"v.name": vm_of[v]["name"], "v.node": vm_of[v]["node"],
         "i.mac_address": nic_of[i]["mac_address"], "i.bridge": nic_of[i]["bridge"]}
        for v, i, _ in links["HAS_NETWORK_INTERFACE"]
        if nic_of[i]["bridge"] == "vmbr0" and vm_of[v]["status"] == "running"
    ]
    out["3"] = [
        {"n.name": n["name"], "n.cpu_usage": n["cpu_usage"], "n.status": n["status"],
         "memory_percent": percent(n["memory_used"], n["memory_total"])}
        for n in sorted(machines, key=lambda n: down(n["cpu_usage"]))
        if above(n["cpu_usage"], 0.8)
        or (n["memory_used"] is not None and n["memory_total"] and n["memory_used"] * 1.0 / n["memory_total"] > 0.9)
    ]
    out["4"] = [
        {"v.name": v["name"], "v.node": v["node"], "v.status": v["status"], "v.tags": v["tags"]}
        for v in vms if "production" in v["tags"]
    ]
    out["5"] = sorted(
        ({"s.name": s["name"], "s.type": s["type"], "usage_percent": percent(s["used"], s["total"]),
          "s.shared": s["shared"]}
         for s in nodes["ProxmoxStorage"] if above(s["total"], 0)),
        key=lambda row: down(row["usage_percent"]),
    )
    owner = {d: v for v, d, _ in links["HAS_DISK"]}
    out["6"] = sorted(
        ({"v.name": vm_of[owner[d["id"]]]["name"], "d.disk_id": d["disk_id"], "d.size": d["size"],
          "storage": s["name"], "s.type": s["type"]}
         for d, s in stored_on),
        key=lambda row: up(row["v.name"], row["d.disk_id"]),
    )
    out["7"] = [
        {"v.name": v["name"], "v.node": v["node"], "v.cluster_id": v["cluster_id"]}
        for v in vms
        if v["template"] is False and not any(d["backup"] is True for d in disks_of[v["id"]])
    ]
    hosted = {n["id"]: 0 for n in machines}
    for n, v, _ in links["HOSTS_VM"]:
        hosted[n] += vm_of[v]["template"] is False
    out["8"] = sorted(
        ({"cluster": c, "node": n["name"], "vm_count": hosted[n["id"]], "n.status": n["status"]}
         for c in (k["name"] for k in nodes["ProxmoxCluster"]) for n in machines),
        key=lambda row: up(row["cluster"], row["node"]),
    )
    return out


def reports(nodes, links):
    """Our own two backup reports."""
    enabled = {j["id"] for j in nodes["ProxmoxBackupJob"] if j["enabled"]}
    covered = {v for j, v, _ in links["BACKS_UP"] if j in enabled}
    vm_of = {v["id"]: v for v in nodes["ProxmoxVM"]}
    disk_of = {d["id"]: d for d in nodes["ProxmoxDisk"]}
    named = lambda v: {k: v[k] for k in ("name", "node", "vmid", "cluster_id")}
    return {
        "backupless": [
            named(v) for v in nodes["ProxmoxVM"] if v["template"] is False and v["id"] not in covered
        ],
        "excluded-disks": [
            named(vm_of[v]) | {"disk_id": d["disk_id"], "storage": d["storage"], "size": d["size"]}
            for v, d in ((v, disk_of[d]) for v, d, _ in links["HAS_DISK"])
            if d["attached"] and d["backup"] is False
        ],
    }


def unseen(nodes, other):
    """What of this graph another view of the same estate does not show."""
    rows = other.get("/cluster/resources")
    visible = {
        "ProxmoxVM": {r["vmid"] for r in rows if r["type"] in ("qemu", "lxc")},
        "ProxmoxNode": {r["node"] for r in rows if r["type"] == "node"},
        "ProxmoxStorage": {d["storage"] for d in other.maybe("/storage") or []},
        "ProxmoxBackupJob": {j["id"] for j in other.maybe("/cluster/backup") or []},
    }
    key = {"ProxmoxVM": "vmid"}
    out = {
        label: [n["id"] for n in nodes[label] if n[key.get(label, "id")] not in ids] for label, ids in visible.items()
    }
    for label in ("ProxmoxDisk", "ProxmoxNetworkInterface", "ProxmoxSnapshot"):
        out[label] = [n["id"] for n in nodes[label] if n["vmid"] not in visible["ProxmoxVM"]]
    # Nodes come with base fields only where the token may not audit them.
    addresses = {r["name"]: r.get("ip") for r in other.maybe("/cluster/status") or [] if r["type"] == "node"}
    out["node properties"] = {
        r["node"]: lost
        for r in sorted(rows, key=lambda r: str(r.get("node"))) if r["type"] == "node"
        if (lost := sorted(k for k, v in node(r, addresses.get(r["node"]), None).items()
                           if v is None and k != "cluster_id"))
    }
    refused = ("/cluster/status", "/cluster/backup")
    out["refused"] = {p: other.answers[p][0] for p in refused if other.answers[p][0] != 200}
    return out


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("estate", help="a recording, one {path, status, reason, json} a line")
    arguments.add_argument("--unseen-by", action="append", default=[], metavar="NAME=FILE",
                           help="adds what this other recording of the same estate does not show")
    given = arguments.parse_args()
    nodes, links = build(Estate(given.estate))
    put_in_order(nodes, links)
    out = {
        "nodes": nodes,
        "relationships": links,
        "queries": {**contract_queries(nodes, links), "reports": reports(nodes, links)},
    }
    for other in given.unseen_by:
        name, _, file = other.partition("=")
        out.setdefault("unseen", {})[name] = unseen(nodes, Estate(file))
    json.dump(out, sys.stdout, sort_keys=True, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
