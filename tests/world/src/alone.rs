//! egressd with no engine: bindings in manifests, plain containers, and a subnet behind another interface.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    build::World,
    container::Container,
    egressd::{Egressd, manifests},
    layout::Nic,
    machine::Machine,
    netns::Netns,
    status::until,
    talk,
    traffic::nobody,
};

/// A manifest of one `EgressBinding`.
#[derive(Clone, Debug)]
pub struct Binding {
    name: String,
    fields: Vec<String>,
}

impl Binding {
    /// Binds `who`, one field of the spec in YAML: `networkNamespaces: [blue]`.
    pub fn new(name: &str, who: &str) -> Self {
        Self { name: name.to_owned(), fields: vec![who.to_owned()] }
    }

    /// Binds the network namespace of that name.
    pub fn of(netns: &Netns) -> Self {
        Self::new(netns.name(), &format!("networkNamespaces: [{}]", netns.name()))
    }

    /// To the NIC's addresses, each with its gateway.
    #[must_use]
    pub fn to(self, machine: &Machine, nic: Nic) -> Self {
        let exit =
            |like: &IpAddr| format!("{{address: '{}', gateway: '{}'}}", machine.layout.private(nic, *like), machine.gateway(nic, *like));
        let exits: Vec<String> = machine.servers().iter().map(exit).collect();
        self.with(&format!("exits: [{}]", exits.join(", ")))
    }

    /// With one more field of the spec.
    #[must_use]
    pub fn with(mut self, field: &str) -> Self {
        self.fields.push(field.to_owned());
        self
    }

    /// The document.
    pub fn text(&self) -> String {
        let fields = self.fields.join(", ");
        format!("apiVersion: egressd.dev/v1alpha1\nkind: EgressBinding\nmetadata: {{name: {}}}\nspec: {{{fields}}}\n", self.name)
    }
}

impl World {
    /// Starts egressd with no engine, for the folder [`manifests`], and waits until it has programmed what is there.
    pub fn egressd_alone(&self) -> Egressd {
        self.egressd_alone_with(&[])
    }

    /// The same, with more arguments.
    pub fn egressd_alone_with(&self, arguments: &[&str]) -> Egressd {
        fs::create_dir_all(manifests()).expect("/run is ours");
        let folder = manifests();
        let egressd = self.egressd(&[&["--no-docker", "--manifests", &folder.to_string_lossy()], arguments].concat());
        self.await_ready();
        egressd
    }

    /// Writes a manifest, all at once, as a careful operator would. Its name is that of the binding.
    pub fn bind(&self, binding: &Binding) {
        self.write_manifest(&format!("{}.yaml", binding.name), binding.text().as_bytes());
    }

    /// Removes the manifest of a binding.
    pub fn unbind(&self, name: &str) {
        self.remove_manifest(&format!("{name}.yaml"));
    }

    /// Removes a file from the folder of manifests.
    pub fn remove_manifest(&self, file: &str) {
        fs::remove_file(manifests().join(file)).expect("it was written");
    }

    /// Writes any file into the folder of manifests.
    pub fn write_manifest(&self, file: &str, content: &[u8]) {
        fs::create_dir_all(manifests()).expect("/run is ours");
        let hidden = manifests().join(".new");
        fs::write(&hidden, content).and_then(|()| fs::rename(&hidden, manifests().join(file))).expect("/run is ours");
    }

    /// Waits until egressd has handled what happened before: until it lists a new binding, of a namespace that is not there.
    pub fn await_handled(&self) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("handled-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.bind(&Binding::new(&name, &format!("networkNamespaces: [{name}]")).to(self, Nic::Eth1));
        let listed = format!("file/default/{name}");
        until("a new binding is listed", || {
            let status = self.status();
            let mut bindings = status["bindings"].as_array().into_iter().flatten();
            if bindings.any(|binding| binding["binding"] == listed) { Ok(()) } else { Err(format!("{status:#}")) }
        });
        self.unbind(&name);
    }

    /// Writes it, and waits until each address of the workload has the NIC's address as its exit.
    pub fn bind_to(&self, netns: &Netns, binding: Binding, nic: Nic) {
        self.bind(&binding.to(self, nic));
        self.await_nic(&format!("netns/{}", netns.name()), nic);
    }

    /// A subnet behind an interface `lan0` of the host, masqueraded as containers are, and a server in it that routes through the host.
    pub fn lan(&self) -> Lan {
        let netns = Netns::add("lan");
        netns.sysctl("ipv6/conf/default/dad_transmits", "0");
        let lan = Lan { netns, address: Ipv4Addr::new(10, 9, 0, 10), address6: Ipv6Addr::new(0xfd10, 9, 0, 0, 0, 0, 0, 0x10) };
        self.host.ip("link add lan0 type veth peer name eth0 netns lan
             addr add 10.9.0.1/24 dev lan0
             link set lan0 up");
        self.host.ip("addr add fd10:9::1/64 dev lan0 nodad");
        lan.netns.ip(&format!(
            "addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad
             link set eth0 up
             route add default via 10.9.0.1
             route add default via fd10:9::1",
            lan.address, lan.address6
        ));
        for (iptables, subnet) in [("iptables", "10.9.0.0/24"), ("ip6tables", "fd10:9::/64")] {
            self.host.run(&[iptables, "-t", "nat", "-A", "POSTROUTING", "-s", subnet, "!", "-o", "lan0", "-j", "MASQUERADE"]);
        }
        lan
    }
}

/// A server that routes through the host.
pub struct Lan {
    /// Where it is.
    pub netns: Netns,
    /// Its address, in 10.9.0.0/24.
    pub address: Ipv4Addr,
    /// Its IPv6 address, in fd10:9::/64.
    pub address6: Ipv6Addr,
}

impl Container {
    /// Sends one datagram to the internet from one of its addresses, given or taken.
    pub fn shout_as(&self, address: IpAddr) {
        talk::shout(&self.netns, address, nobody(address));
    }
}
