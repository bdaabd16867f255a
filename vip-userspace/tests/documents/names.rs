//! Of which kind a name is, and whether there is one of that name.

use super::known::Known;

/// Names of others: of the kernel, Kubernetes, package managers, RFCs.
const FOREIGN: &str = "
    arp_ignore arp_announce rp_filter route_localnet virtual_router_id vrrp_version advert_int
    unicast_peer global_defs lb_enable allowed_address_pairs container_t spc_t unconfined_service_t
    bpf_skc_lookup_tcp bpf_tcp_check_syncookie bpf_xdp_get_buff_len bpf_link sk_lookup sock_release
    confirm_addr_indev tw_rcv_nxt no_std IPv6_rpfilter ErrImagePull IPReversePathFilter
    HTTP2_READ_IDLE_TIMEOUT_SECONDS HTTP2_PING_TIMEOUT_SECONDS KeepAlive nf_conntrack_tcp_loose
    HostEndpoint JoinConfiguration pinned_images bin_t init_t nnp_transition NoNewPrivileges
    bpf_probe_read_kernel --zone
    --control-plane-endpoint --anonymous-auth --cpu-features --kernel --keep --versus --disable-port-security
    BPF_PROG_TEST_RUN BPF_F_XDP_HAS_FRAGS BPF_F_BEFORE TC_ACT_OK XDP_PASS XDP_TX OP_EXP1
    IFLA_EVENT RLIMIT_MEMLOCK CAP_SYS_NICE SYS_NICE IPC_LOCK
    MINISIGN_KEY MINISIGN_PASSWORD kube_vip_enabled ControlPlaneKubeletLocalMode
    NO_COLOR CLICOLOR_FORCE
";

/// What is wrong with the name in a code span; `before` is the text before it.
pub(crate) fn fault(known: &Known, span: &str, before: &str) -> Option<String> {
    if span.contains("://") || span.is_empty() {
        return None;
    }
    if let Some(command) = span.strip_prefix("vip ") {
        return in_command(known, command);
    }
    if let Some(task) = span.strip_prefix("cargo xtask ") {
        return in_task(known, task);
    }
    if span.starts_with("--") {
        let flag = span.split([' ', '=']).next().unwrap_or(span);
        let exists = known.commands.values().any(|flags| flags.contains(flag));
        return (!exists && !is_foreign(flag)).then(|| format!("no flag `{flag}`"));
    }
    if span.starts_with('[') {
        return in_section(known, span);
    }
    if let Some((key, _)) = span.split_once(" = ")
        && is_snake_case(key)
    {
        let exists = known.keys.values().any(|keys| keys.contains(key));
        return (!exists).then(|| format!("no key `{key}`"));
    }
    if let Some((prefix, _)) = span.split_once('<')
        && prefix.ends_with('-')
    {
        let mut literals = known.literals.iter();
        let exists =
            literals.any(|name| name == prefix || name.starts_with(&format!("{prefix}{{")));
        return (!exists).then(|| format!("no pin `{span}`"));
    }
    if span.starts_with('/') {
        return in_file_system(known, span);
    }
    if let Some(prefix) = span.strip_suffix('…')
        && prefix.ends_with('_')
    {
        let exists = known.counters.iter().any(|name| name.starts_with(prefix));
        return (!exists).then(|| format!("no counter `{span}`"));
    }
    if let Some((metric, labels)) = span.strip_suffix('}').and_then(|span| span.split_once('{'))
        && is_snake_case(metric)
    {
        return in_metric(known, metric, labels);
    }
    if is_in_repository(known, span) {
        let exists = known.root.join(span).exists();
        return (!exists).then(|| format!("no file `{span}`"));
    }
    if let Some((owner, member)) = span.split_once("::") {
        let exists = known.words.contains(owner) && known.words.contains(member);
        return (!exists && is_word(owner) && is_word(member)).then(|| format!("no item `{span}`"));
    }
    // By what the text calls it.
    let word = before.trim_end().rsplit([' ', '(', '|', '*']).next();
    let of_a_kind = match word.unwrap_or("").to_lowercase().as_str() {
        "event" | "events" => Some(("event", &known.events)),
        "counter" | "counters" => Some(("counter", &known.counters)),
        "alarm" => Some(("alarm", &known.alarms)),
        _ => None,
    };
    if let Some((kind, names)) = of_a_kind
        && is_snake_case(span)
    {
        return (!names.contains(span)).then(|| format!("no {kind} `{span}`"));
    }
    if is_foreign(span) {
        return None;
    }
    if span.starts_with("vip_") && is_snake_case(span) {
        return (!known.is_metric(span) && !known.items.contains(span))
            .then(|| format!("no metric or program `{span}`"));
    }
    if span.starts_with("Vip") && is_type_name(span) {
        return (!known.alerts.contains(span)).then(|| format!("no alert `{span}`"));
    }
    let is_key = known.keys.values().any(|keys| keys.contains(span));
    let stands_in_sources = known.words.contains(span)
        || known.literals.contains(span)
        || known.other_literals.contains(span);
    let must_stand_there = span.contains('_') && is_word(span) || is_type_name(span);
    (must_stand_there && !is_key && !stands_in_sources).then(|| format!("no name `{span}`"))
}

/// What is wrong with the commands of a block.
pub(crate) fn in_commands(known: &Known, block: &str) -> Vec<String> {
    let lines = block.lines().map(|line| {
        let line = line.split(" # ").next().unwrap_or(line).trim();
        line.strip_prefix("sudo ").unwrap_or(line)
    });
    let faults = lines.filter_map(|line| {
        if let Some(command) = line.strip_prefix("vip ") {
            in_command(known, command)
        } else {
            in_task(known, line.strip_prefix("cargo xtask ")?)
        }
    });
    faults.collect()
}

/// What is wrong with the keys of a configuration.
pub(crate) fn in_configuration(known: &Known, block: &str) -> Vec<String> {
    let mut section = "";
    let mut faults = Vec::new();
    let mut look = |section: &str, key: &str| {
        let keys = known.keys.get(section);
        if !keys.is_some_and(|keys| keys.contains(key)) {
            faults.push(format!("no key `{key}` in [{section}]"));
        }
    };
    for line in block.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']);
            look("", section);
        } else if line.starts_with('{') || line.contains("= [{") {
            for part in line.split(['{', ',']).filter(|part| part.contains(" = ")) {
                let key = part.split(" = ").next().unwrap_or(part).trim();
                if key != "nodes" {
                    look("nodes", key);
                }
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            look(section, key);
        }
    }
    faults
}

/// A subcommand of `vip` with its flags.
fn in_command(known: &Known, command: &str) -> Option<String> {
    let mut words = command.split_whitespace();
    let name = words.next()?;
    if matches!(name, "--help" | "--version") {
        return None;
    }
    let Some(flags) = known.commands.get(name) else {
        return Some(format!("no command `vip {name}`"));
    };
    let used = words.map(|word| word.trim_start_matches('[').trim_end_matches(']'));
    let mut used = used.filter(|word| word.starts_with("--"));
    let flag = used.find(|flag| !flags.contains(*flag))?;
    Some(format!("no flag `{flag}` of `vip {name}`"))
}

/// A task of xtask, and which benchmark or tests.
fn in_task(known: &Known, task: &str) -> Option<String> {
    let mut words = task.split_whitespace();
    let name = words.next()?;
    if !known.tasks.contains(name) {
        return Some(format!("no task `cargo xtask {name}`"));
    }
    let which = words.next().filter(|word| !word.starts_with('-'))?;
    let exists = match name {
        "bench" => {
            let folder = known.root.join("tests/src/bin/bench");
            folder.join(format!("{which}.rs")).exists() || folder.join(which).exists()
        }
        "test" => matches!(which, "unit" | "netns" | "vm"),
        _ => true,
    };
    (!exists).then(|| format!("no `cargo xtask {name} {which}`"))
}

/// A section of the configuration, alone or with one of its keys.
fn in_section(known: &Known, span: &str) -> Option<String> {
    let (section, rest) = span.trim_start_matches('[').split_once(']')?;
    if !is_snake_case(section) {
        return None;
    }
    let Some(keys) = known.keys.get(section) else {
        return Some(format!("no section `[{section}]`"));
    };
    let key = rest.trim_start_matches(']').trim();
    let key = key.split(" = ").next().unwrap_or(key);
    (!key.is_empty() && !keys.contains(key)).then(|| format!("no key `{key}` in [{section}]"))
}

/// A path on a node. Those that are the agent's own have their names in its sources.
fn in_file_system(known: &Known, path: &str) -> Option<String> {
    let own = ["/run/vip/", "/var/lib/vip/", "/sys/fs/bpf/vip/"];
    let name = own.iter().find_map(|folder| path.strip_prefix(folder))?;
    let is_map = name.starts_with("VIP_") && known.words.contains(name);
    (!is_map && !known.literals.contains(name)).then(|| format!("no file `{path}`"))
}

/// A metric with labels and their values.
fn in_metric(known: &Known, metric: &str, labels: &str) -> Option<String> {
    if !known.is_metric(metric) {
        return Some(format!("no metric `{metric}`"));
    }
    let mut names = labels.split(['=', ',']).map(|name| name.trim_matches('"'));
    let wrong = names.find(|name| !known.literals.contains(*name))?;
    Some(format!("no label or value `{wrong}` of `{metric}`"))
}

/// Whether this is meant as a path in the repository: it begins with a folder of it, or is one of
/// the files at its root.
fn is_in_repository(known: &Known, span: &str) -> bool {
    let first = span.split('/').next().unwrap_or(span);
    if span.contains([' ', '*', '<']) || first == "target" || first.is_empty() {
        return false;
    }
    span.contains('/') && known.root.join(first).is_dir()
}

fn is_foreign(name: &str) -> bool {
    FOREIGN.split_whitespace().any(|foreign| foreign == name)
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_snake_case(name: &str) -> bool {
    is_word(name) && !name.contains(|c: char| c.is_ascii_uppercase())
}

/// Two words at least, each with a capital: `NodeThread`.
fn is_type_name(name: &str) -> bool {
    let capitals = name.chars().filter(char::is_ascii_uppercase).count();
    is_word(name)
        && !name.contains('_')
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && capitals > 1
        && name.chars().filter(char::is_ascii_lowercase).count() >= capitals * 2
}
