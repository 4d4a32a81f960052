//! What 0.1.0 left in the kernel and in its folder, as recorded, or the program itself.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use world::{State, World, command, egressd::manifests, service::Service};

/// Where the daemon keeps what it changed.
const LEDGER: &str = "/run/egressd/sysctl.json";

/// The former version, or what is there of it.
pub struct Former(Option<Service>);

impl Former {
    /// Makes the kernel as it leaves it for the world's manifests; `found` is what there was before.
    pub fn start(world: &World, found: &State, program: Option<&Path>) -> Self {
        let Some(program) = program else {
            world.enter(|| command::run(&["sh", "-e", &recorded("kernel.sh").to_string_lossy()]));
            fs::create_dir_all("/run/egressd").expect("/run is ours");
            fs::copy(recorded("sysctl.json"), LEDGER).expect("it is committed");
            return Self(None);
        };
        let mut command = Command::new(program);
        command.args(["run", "--no-docker", "--manifests"]).arg(manifests());
        let service = world.enter(|| Service::start("former", command));
        world.await_ready();
        if env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(recorded("kernel.sh"), script(world, &found.difference(&world.state()))).expect("the tree is ours");
            fs::copy(LEDGER, recorded("sysctl.json")).expect("the tree is ours");
        }
        Self(Some(service))
    }

    /// Ends it, without a chance to tidy up.
    pub fn end(self) {
        if let Some(mut service) = self.0 {
            service.kill();
        }
    }
}

fn recorded(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/0.1.0").join(file)
}

/// The commands that make the kernel so again. Tables have no owner then, as after the end of theirs. What `nft` prints and does not read is
/// left out: a mask within a key, which has no effect here, and rules for subnets that are routed here, which are none.
fn script(world: &World, difference: &[String]) -> String {
    let mut script = "# What egressd 0.1.0 programs for the manifests of this test. Recorded: see main.rs.\nnft -f - <<'END'\n".to_owned();
    for family in ["ip", "ip6", "bridge"] {
        let table = world.host.run(&["nft", "-s", "list", "table", family, "egressd"]);
        for line in table.lines().filter(|line| line.trim() != "flags owner" && !line.contains("[invalid type]")) {
            let line = line.split(" # ").next().unwrap_or_default();
            let _ = writeln!(script, "{}", line.replace("ct mark & 0xff00107f map", "ct mark map"));
        }
    }
    script.push_str("END\n");
    let added = difference.iter().filter_map(|line| line.split_once(": + "));
    for (kind, line) in added {
        let command = match kind {
            "rules" => format!("ip rule add pref {}", line.replacen(": ", " ", 1)),
            "rules, IPv6" => format!("ip -6 rule add pref {}", line.replacen(": ", " ", 1)),
            "routes" => format!("ip route add {line}"),
            "routes, IPv6" => format!("ip -6 route add {line}"),
            "sysctls" => line.split_once(" = ").map_or_else(String::new, |(path, value)| format!("echo {value} >{path}")),
            "links" => {
                let link: Value = serde_json::from_str(line).expect("a link is JSON");
                format!("ip link set {} group {}", link["ifname"].as_str().unwrap_or("?"), link["group"].as_str().unwrap_or("?"))
            }
            _ => continue,
        };
        let _ = writeln!(script, "{command}");
    }
    script
}
