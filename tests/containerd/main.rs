//! egressd and a real containerd: Debian's 1.6 and a current one, alone, with nerdctl and under a kubelet.

mod egress;
mod nerdctl;
mod source;

use std::process::ExitCode;
use std::time::Duration;

use world::Scenario;
use world::containerd::Release;

/// The kubelet's scenario starts a whole cluster.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let mut scenarios = vec![
        Scenario::new("a pod is told by its sandbox's record before its first instruction", || {
            block_on(source::a_kubelets_pod_is_told());
        })
        .with_cluster(),
    ];
    for release in [Release::Debian, Release::Current] {
        let mut add = |name: &str, run: fn(Release)| scenarios.push(Scenario::new(format!("{release:?}: {name}"), move || run(release)));
        add("a sandbox is told with its record, and gone with it", |release| block_on(source::a_sandbox_comes_and_goes(release)));
        add("a container's namespace is that of its task", |release| block_on(source::a_containers_namespace_is_its_tasks(release)));
        add("a containerd that is killed is lost, and then told anew", |release| {
            block_on(source::a_killed_containerd_is_told_anew(release))
        });
        add("shims that hang harm only themselves", |release| block_on(source::shims_that_hang_harm_only_themselves(release)));
        add("two hundred sandboxes at once are all told", |release| block_on(source::many_are_told(release, None)));
        add("two hundred sandboxes, one after another, are all told", |release| {
            block_on(source::many_are_told(release, Some(Duration::from_millis(20))));
        });
        add("a labelled container leaves by its NIC", egress::a_labelled_container_leaves_by_its_nic);
        add("a containerd that is lost is seen in status, metrics and readiness until it is back", egress::a_lost_containerd_is_seen);
        add("nerdctl: no first packet goes astray, and no last one", nerdctl::no_first_packet_goes_astray);
        add("nerdctl: a bridge is guarded as long as a container is made for it", |release| {
            nerdctl::a_bridge_is_guarded_as_long_as_a_container_is_made_for_it(release);
        });
        add("nerdctl: a container is served by its name, as far as its network allows", |release| {
            nerdctl::a_container_is_served_by_its_name_as_far_as_its_network_allows(release);
        });
        add("nerdctl: a clock that steps by hours or days, either way, loses no event", nerdctl::a_clock_that_steps);
        add("ten thousand records are read at once", |release| block_on(source::ten_thousand_are_read(release)));
    }
    world::harness::main(scenarios.into_iter().map(|scenario| scenario.within(LIMIT).shown()).collect())
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}
