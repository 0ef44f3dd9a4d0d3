//! The scripts of the repository, in a mount namespace in which the system's folders are empty ones.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so does its scaffolding"
)]

#[path = "support/skip.rs"]
mod skip;

use std::process::{Command, Output};

/// Runs a script of bash, in which `$run` is `scripts/without-daemons` and `$policy` the file that it writes.
fn bash(script: &str) -> Option<Output> {
    let namespace = ["--user", "--map-root-user", "--mount", "bash", "-euc"];
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        let command = command.args(namespace).arg(script);
        let command = command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command.output()
    };
    let folders = "
        [ ! -L /usr/sbin ]
        mount -t tmpfs none /usr/sbin
        mount -t tmpfs none /etc
        mkdir -p /etc/systemd/system
    ";
    if !unshare(folders).is_ok_and(|output| output.status.success()) {
        skip::skip("needs unshare, user namespaces and a folder /usr/sbin");
        return None;
    }
    let run = "run=$PWD/scripts/without-daemons; policy=/usr/sbin/policy-rc.d";
    Some(unshare(&[folders, run, script].join("\n")).unwrap())
}

#[track_caller]
fn assert_success(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn what_an_installation_enables_is_disabled_under_all_its_names() {
    let script = "
        units=/etc/systemd/system
        mkdir $units/multi-user.target.wants
        ln -s /lib/one.service $units/multi-user.target.wants/one.service
        ln -s /dev/null $units/masked.service
        before=$(ls -R $units)
        $run bash -euc '
            [ \"$($0; echo $?)\" = 101 ]
            ln -s /lib/two.service '$units'/multi-user.target.wants/two.service
            ln -s /lib/two.service '$units'/also-two.service
        ' $policy
        [ \"$(ls -R $units)\" = \"$before\" ]
        [ ! -e $policy ]
    ";
    let Some(output) = bash(script) else { return };
    assert_success(&output);
}

#[test]
fn an_installation_that_ends_leaves_the_daemons_of_another_one_stopped() {
    let folder = tempfile::TempDir::new().unwrap();
    let script = "
        cd FOLDER
        mkfifo begun
        $run bash -euc '> begun; sleep 0.2; [ -x $0 ]' $policy & first=$!
        < begun
        $run bash -euc 'sleep 0.4; [ -x $0 ]' $policy & second=$!
        wait $first
        wait $second
        [ ! -e $policy ]
    ";
    let script = script.replace("FOLDER", folder.path().to_str().unwrap());
    let Some(output) = bash(&script) else { return };
    assert_success(&output);
}

#[test]
fn a_policy_of_somebody_else_stays_and_is_told() {
    let Some(output) = bash("echo theirs >$policy; $run true; grep -q theirs $policy") else {
        return;
    };
    assert_success(&output);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("policy-rc.d is there already"), "{errors}");
}
