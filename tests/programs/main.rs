//! Unchanged programs of the host: by control group, by user, by systemd unit, and started by `egressd exec`.

mod before;
mod bound;
mod everybody;
mod exec;
mod faults;
mod firewall;
mod first;
mod isolated;
mod lab;
mod sockets;
mod verify;

use std::process::ExitCode;

use world::{Scenario, Subnets, programs};

fn main() -> ExitCode {
    // The programs of the scenarios are this one.
    if let Some(code) = programs::act() {
        return code;
    }
    let mut scenarios = Vec::new();
    for subnets in [Subnets::One, Subnets::Two] {
        scenarios.push(Scenario::new(format!("{subnets:?}: a program of a control group leaves by its exit"), move || {
            bound::a_control_group(subnets)
        }));
    }
    scenarios.extend([
        Scenario::new("connections from before a binding go on, and datagrams begin anew", before::keep),
        Scenario::new("a ping that is running begins anew with the binding of its program", before::ping),
        Scenario::new("connections that conntrack has not followed before the first binding go on, too", before::not_followed),
        Scenario::new("a binding that resets ends the connections from before it, and no others", before::reset),
        Scenario::new("a binding that resets ends its own connections of an exit that another has, too", before::reset_beside_another),
        Scenario::new("a connection that a binding resets does not leave, daemon alive or dead", before::reset_by_the_rules_alone),
        Scenario::new("where all programs are bound, connections from before go on or end, as the binding says", before::all_programs),
        Scenario::new("a program of a user leaves by its exit", bound::a_user),
        Scenario::new(
            "programs of two bindings leave by two exits of one NIC, and the one that takes precedence has both's",
            bound::two_exits,
        ),
        Scenario::new("a program is not moved away from what is inside, nor from the loopback", bound::inside_and_loopback),
        Scenario::new("a bound program is called at the other NIC's address, and answers by that", bound::called_at_the_other_nic),
        Scenario::new("a binding for some ports leaves the rest to the default route", bound::some_ports),
        Scenario::new("marks that other programs set in output lead no bound program elsewhere", bound::marked_by_others),
        Scenario::new("marks that other programs set in postrouting take no bound program's exit away", bound::marked_for_tc),
        Scenario::new("programs that send from one port to one server leave each by its own exit", bound::one_port_one_after_the_other),
        Scenario::new("programs' flows are spread over exits by turn", bound::by_turn),
        Scenario::new("programs that listen on bridges' addresses are called at their NICs, and call out by them", sockets::of_bridges),
        Scenario::new("sockets of a binding's address are held without an exit, told, and begin anew by another", sockets::without_an_exit),
        Scenario::new("sockets of an address that goes and comes leave by their exit alone", sockets::that_come_anew),
        Scenario::new("a NIC's own address is nobody's to bind", sockets::of_a_nic),
        Scenario::new("all programs of the host leave by three exits by turn, daemon alive or dead", everybody::by_turn),
        Scenario::new("where all programs are bound, what is not theirs to send stays as it was", everybody::left_alone),
        Scenario::new("where all programs are bound, a socket keeps the address that it is bound to", everybody::own_addresses),
        Scenario::new("where all programs are bound, egressd's own probes go their way", everybody::probes),
        Scenario::new("all programs are held in a family without an exit, unless the binding is not for it", everybody::one_family),
        Scenario::new("all programs are held without an exit, or fall back", everybody::without_exits),
        Scenario::new("programs of two bindings leave as one exit with the source ports of each", bound::source_ports),
        Scenario::new("the first packets of programs in groups made anew leave by the exit or not at all", first::groups_made_anew),
        Scenario::new("a group made anew below a bound one does not leave by the exit of that", first::below_a_bound_group),
        Scenario::new("a unit's group is found, and found again after a restart", first::a_unit),
        Scenario::new("instances of a template leave by its exit from their first packet", first::instances_of_a_template),
        Scenario::new("a closed socket's last packets leave by its exit", first::orphans),
        Scenario::new("a killed daemon changes nothing, and what is made anew meanwhile is held", faults::a_killed_daemon),
        Scenario::new("without its NIC a program is held or falls back, and goes on when that is back", faults::the_nic_goes),
        Scenario::new("a NIC that comes back as another interface is taken up, daemon alive or dead meanwhile", faults::another_interface),
        Scenario::new("unbound programs' flows end, and new ones leave by the default route", faults::unbound),
        Scenario::new("a program's open connections go on when its binding has another exit", faults::another_exit),
        Scenario::new("what is wrong with a binding, or is not there, is said and harms nobody else", faults::bad_input),
        Scenario::new("exec starts a program by a binding and as an address", exec::by_a_binding_and_as_an_address),
        Scenario::new("exec starts nothing when it cannot be sure", exec::refused),
        Scenario::new("exec comes ahead of bindings of the user and of groups", exec::ahead_of_other_bindings),
        Scenario::new("exec by a binding with a rate needs a namespace", exec::a_rate),
        Scenario::new("exec takes options of a file, and gives the program its own arguments alone", exec::options_of_a_file),
        Scenario::new("verify asks from each exit which address the outside sees", verify::each_exit_is_asked),
        Scenario::new("exec by many addresses, one after the other, leaves ways to others", exec::many_addresses),
        Scenario::new(
            "exec in a namespace: a program leaves by its exit, is called at it, and leaves nothing when killed",
            isolated::out_and_in,
        ),
        Scenario::new("exec in a namespace: a program whose binding goes is blocked", isolated::blocked_with_its_exit),
        Scenario::new("exec in a namespace: programs of one binding take turns together", isolated::by_turn),
        Scenario::new(
            "exec in a namespace: no other program's masquerade takes it out, whatever its address, binding or daemon",
            isolated::never_masqueraded,
        ),
        Scenario::new("exec in a namespace: where FORWARD drops a program leaves and nobody else does", firewall::drops_by_policy),
        Scenario::new(
            "exec in a namespace: Docker's FORWARD lets it out, and calls by TCP, UDP, IPv4 and IPv6 in, behind what users drop",
            firewall::docker_user,
        ),
        Scenario::new("exec in a namespace: what firewalld drops is told until it trusts the links", firewall::firewalld),
        Scenario::new(
            "exec in a namespace: a subnet and a port are free as soon as their program has ended",
            isolated::one_after_the_other,
        ),
        Scenario::new("exec in a namespace: name servers wherever the host has its own from", isolated::name_servers),
        Scenario::new("exec in a namespace takes a subnet and name servers, and names what is wrong", isolated::refused_and_named),
    ]);
    world::harness::main_of_waiting(scenarios)
}
