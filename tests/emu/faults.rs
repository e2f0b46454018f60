//! Planted bugs: each must be reported under every seed, with kernel, block, thread and line.

use super::device::{Arg, Launch, bytes, seeds};

/// A kernel with a switchable bug, its other arguments, and per bug the kinds that may report it.
struct Suspect<'a> {
    launch: Launch<'a>,
    faults: &'a [(i32, &'a [&'a str])],
}

impl Suspect<'_> {
    #[track_caller]
    fn check(mut self) {
        let kernel = self.launch.kernel;
        self.launch.args.push(Arg::I32(0));
        self.launch.outputs();
        for (fault, kinds) in self.faults {
            *self.launch.args.last_mut().unwrap() = Arg::I32(*fault);
            for seed in seeds() {
                let findings = self.launch.run(seed).findings;
                let expected =
                    |line: &str| kinds.iter().any(|k| line.starts_with(&format!("[{k}]")));
                assert!(
                    findings.lines().any(expected),
                    "{kernel} fault {fault} seed {seed}: expected {kinds:?}, found: {findings}"
                );
                for line in findings.lines() {
                    assert!(line.contains(kernel), "names the kernel: {line}");
                }
                let placed = |line: &str| line.contains("kernels/conformance/faults");
                assert!(findings.lines().any(placed), "names the source line: {findings}");
                assert!(
                    findings.contains("block (") && findings.contains("thread ("),
                    "{findings}"
                );
            }
        }
    }
}

fn launch<'a>(kernel: &'a str, grid: u32, block: u32, args: Vec<Arg<'a>>) -> Launch<'a> {
    Launch { kernel, grid, block, shared_bytes: 16384, args, ..Launch::default() }
}

#[test]
fn bugs_in_plain_shared_and_global_memory_are_reported() {
    let input = [1.0f32; 3 * 64];
    let mut suspect = launch("fault_block_sum", 3, 64, vec![Arg::Out(12), Arg::In(bytes(&input))]);
    suspect.shared_bytes = 256;
    Suspect {
        launch: suspect,
        faults: &[
            (1, &["race-raw", "uninitialised"]),
            (2, &["shared-oob"]),
            (3, &["deadlock"]),
            (4, &["global-oob"]),
            (5, &["align"]),
            (6, &["wild"]),
            (7, &["uninitialised"]),
            (8, &["race-blocks"]),
            (9, &["warp-diverged"]),
            (10, &["deadlock"]),
            (11, &["warp-mask", "shuffle-inactive"]),
            (12, &["barrier-count"]),
        ],
    }
    .check();
}

#[test]
fn bugs_with_cp_async_are_reported() {
    let input = [1u32; 256];
    Suspect {
        launch: launch("fault_cp_async", 1, 64, vec![Arg::Out(1024), Arg::In(bytes(&input))]),
        faults: &[
            (1, &["race-raw"]),
            (2, &["race-raw"]),
            (3, &["race-raw", "uninitialised"]),
            (4, &["race-raw"]),
            (5, &["global-oob"]),
            (6, &["race-war", "race-raw"]),
            (7, &["align"]),
        ],
    }
    .check();
}

#[test]
fn bugs_inside_a_warp_are_reported() {
    let input = [1.0f32; 64];
    Suspect {
        launch: launch("fault_warp", 1, 32, vec![Arg::Out(256), Arg::In(bytes(&input))]),
        faults: &[
            (1, &["race-raw", "uninitialised"]),
            (2, &["race-war", "race-raw"]),
            (3, &["warp-diverged"]),
        ],
    }
    .check();
}

#[test]
fn missing_order_between_blocks_is_reported() {
    let launch = launch(
        "fault_last_block",
        5,
        32,
        vec![Arg::Out(128), Arg::Out(5 * 128), Arg::InOut(bytes(&[0u32]))],
    );
    let race: &[&str] = &["race-blocks"];
    Suspect { launch, faults: &[(1, race), (2, race), (3, race), (4, race)] }.check();
}

#[test]
fn a_kernel_that_polls_for_ever_is_reported() {
    Suspect {
        launch: launch("fault_hang", 1, 32, vec![Arg::InOut(bytes(&[0u32]))]),
        faults: &[(1, &["hang"])],
    }
    .check();
}

#[test]
fn bugs_with_mbarriers_and_bulk_loads_are_reported() {
    let n = 7;
    let input = vec![1.0f32; n * 32];
    Suspect {
        launch: launch(
            "fault_ring",
            1,
            64,
            vec![Arg::Out(n * 128), Arg::In(bytes(&input)), Arg::I32(n as i32)],
        ),
        faults: &[
            (1, &["race-raw", "uninitialised"]),
            (2, &["race-waw", "race-war", "mbarrier-overarrive"]),
            (3, &["race-raw", "uninitialised", "deadlock"]),
            (4, &["race-raw", "deadlock", "mbarrier-tx", "race-waw"]),
            (5, &["mbarrier-proxy"]),
            (6, &["mbarrier-init-race", "mbarrier-uninitialised"]),
            (7, &["race-war", "mbarrier-overarrive", "race-raw", "deadlock"]),
            (8, &["deadlock"]),
            (9, &["race-raw", "race-war", "uninitialised", "deadlock"]),
        ],
    }
    .check();
}

#[test]
fn bugs_with_bulk_stores_are_reported() {
    Suspect {
        launch: launch("fault_store", 1, 64, vec![Arg::InOut(&[0; 4096])]),
        faults: &[
            (1, &["proxy-raw"]),
            (2, &["race-raw", "uninitialised"]),
            (3, &["proxy-raw"]),
            (4, &["race-war"]),
            (5, &["exit-async"]),
            (6, &["race-global"]),
        ],
    }
    .check();
}

#[test]
fn bugs_with_wgmma_are_reported() {
    Suspect {
        launch: launch("fault_wgmma", 1, 128, vec![Arg::Out(128 * 128)]),
        faults: &[
            (1, &["proxy-raw"]),
            (2, &["race-raw", "uninitialised"]),
            (3, &["wgmma-fence"]),
            (4, &["wgmma-wait"]),
            (5, &["wgmma-commit"]),
            (6, &["race-war"]),
            (7, &["wgmma-accumulator"]),
            (8, &["wgmma-descriptor"]),
            (9, &["shared-oob"]),
        ],
    }
    .check();
}

#[test]
fn bugs_between_blocks_of_a_cluster_are_reported() {
    let mut suspect = launch("fault_cluster", 4, 32, vec![Arg::Out(512)]);
    suspect.cluster = 2;
    Suspect {
        launch: suspect,
        faults: &[
            (1, &["race-raw", "uninitialised", "cluster-exit"]),
            (2, &["race-war", "race-raw"]),
        ],
    }
    .check();
}

#[test]
fn a_report_names_the_very_line() {
    let input = [1.0f32; 64];
    let mut suspect =
        launch("fault_block_sum", 1, 64, vec![Arg::Out(4), Arg::In(bytes(&input)), Arg::I32(4)]);
    suspect.shared_bytes = 256;
    let findings = suspect.run(0).findings;
    let source = include_str!("../../kernels/conformance/faults.cu");
    let line = 1 + source.lines().position(|l| l.contains("// line: global-oob")).unwrap();
    let place = format!(
        "[global-oob] fault_block_sum block (0,0,0) thread (0,0,0) at \
         kernels/conformance/faults.cu:{line}:"
    );
    assert!(findings.starts_with(&place), "{findings}");
}

#[test]
fn the_same_seed_gives_the_same_findings() {
    let input = [1.0f32; 32 * 7];
    let suspect = launch(
        "fault_ring",
        1,
        64,
        vec![Arg::Out(32 * 28), Arg::In(bytes(&input)), Arg::I32(7), Arg::I32(2)],
    );
    for seed in [3, 4, 5] {
        assert_eq!(suspect.run(seed).findings, suspect.run(seed).findings);
    }
}
