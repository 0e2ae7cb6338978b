//! A cluster is started, used, killed, restarted and dropped, for real.

use super::*;
use crate::processes::runs;

fn started() -> Cluster {
    Cluster::start(Options::default()).unwrap()
}

#[test]
fn psql_returns_rows_and_names_errors() {
    let cluster = started();
    cluster.create_database("shop").unwrap();
    cluster
        .psql("shop", "create table t (a int, b text);\ninsert into t values (1, 'x'), (2, null)")
        .unwrap();
    assert_eq!(cluster.psql("shop", "select * from t order by a").unwrap(), "1|x\n2|");
    let error = cluster.psql("shop", "select 1;\nselect * from nowhere;\nselect 2").unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(cluster.psql("postgres", "show wal_level").unwrap(), "logical");
}

#[test]
fn every_installed_version_runs() {
    for (major, bin) in crate::installations() {
        let cluster = Cluster::start(Options::default().with_bin(bin)).unwrap();
        let version = cluster.psql("postgres", "show server_version_num").unwrap();
        assert_eq!(version.parse::<u32>().unwrap() / 10_000, major);
    }
}

#[test]
fn psql_takes_more_than_a_pipe_holds_in_both_directions() {
    let cluster = started();
    let sql = "select repeat('x', 100);\n".repeat(5_000);
    assert_eq!(cluster.psql("postgres", &sql).unwrap().len(), 5_000 * 101 - 1);
}

#[test]
fn committed_rows_survive_kill9() {
    let cluster = started();
    cluster
        .psql("postgres", "create table t (a int);\ninsert into t select generate_series(1, 1000)")
        .unwrap();
    let family = crate::processes::children_of(cluster.pid().unwrap());
    assert!(family.len() > 3);
    cluster.kill9().unwrap();
    assert!(!family.iter().any(|&pid| runs(pid)));
    assert!(cluster.psql("postgres", "select 1").is_err());
    assert!(cluster.kill9().is_err());
    let port = cluster.port();
    cluster.start_again().unwrap();
    assert!(cluster.start_again().is_err());
    assert_eq!(cluster.port(), port);
    assert_eq!(cluster.psql("postgres", "select count(*) from t").unwrap(), "1000");
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("postgres", "select count(*) from t").unwrap(), "1000");
}

#[test]
fn drop_leaves_nothing() {
    for end in [|_: &Cluster| {}, |cluster: &Cluster| cluster.kill9().unwrap()] {
        let cluster = started();
        let (pid, folder) = (cluster.pid().unwrap(), cluster.socket_dir().to_path_buf());
        end(&cluster);
        drop(cluster);
        assert!(!runs(pid));
        assert!(!folder.exists());
    }
}

#[test]
fn settings_change_at_once_or_at_a_restart() {
    let cluster = Cluster::start(Options::default().with("work_mem", "1MB")).unwrap();
    cluster.set("work_mem", "2MB").unwrap();
    assert_eq!(cluster.psql("postgres", "show work_mem").unwrap(), "2MB");
    cluster.set("wal_level", "replica").unwrap();
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("postgres", "show wal_level").unwrap(), "replica");
}

#[test]
fn a_password_is_asked_for() {
    let cluster = Cluster::start(Options::default().with_password("it's \\ secret")).unwrap();
    assert_eq!(cluster.psql("postgres", "select 1").unwrap(), "1");
    let connect = |url: &str| {
        let mut psql = Command::new(cluster.bin().join("psql"));
        psql.args(["-XAtqw", url, "-c", "select 1"]).output().unwrap().status.success()
    };
    assert!(connect(&cluster.url("postgres")));
    assert!(connect(&cluster.tcp_url("postgres")));
    assert!(!connect(&cluster.tcp_url("postgres").replace("secret", "guess")));
}

#[test]
fn a_bad_setting_is_told_with_the_log() {
    let error = Cluster::start(Options::default().with("wal_level", "nonsense")).unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    let error = Cluster::start(Options::default().with_bin("/nowhere")).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

#[test]
fn many_clusters_run_at_once() {
    thread::scope(|scope| {
        for index in 0..4 {
            scope.spawn(move || {
                let cluster = started();
                cluster.create_database(&format!("d{index}")).unwrap();
                assert_eq!(cluster.psql(&format!("d{index}"), "select 7").unwrap(), "7");
            });
        }
    });
}

/// Started by the test below in a process of its own; does nothing otherwise.
#[test]
fn victim() {
    let Some(answer) = env::var_os("THINWIRE_CLUSTER_VICTIM") else {
        return;
    };
    let cluster = started();
    let pid = cluster.pid().unwrap();
    let home = cluster.socket_dir().display();
    fs::write(&answer, format!("{pid}\n{home}\n")).unwrap();
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_cluster_vanishes_with_a_process_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let answer = folder.path().join("answer");
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "cluster::tests::victim"])
        .env("THINWIRE_CLUSTER_VICTIM", &answer)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let told = wait_for(|| fs::read_to_string(&answer).ok().filter(|text| text.ends_with('\n')));
    let (pid, home) = told.trim_end().split_once('\n').unwrap();
    assert!(runs(pid.parse().unwrap()));
    process.kill().unwrap();
    process.wait().unwrap();
    wait_for(|| (!runs(pid.parse().unwrap()) && !Path::new(home).exists()).then_some(()));
}

fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(20));
    }
}
