//! The suite as the main function of a `harness = false` test.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::fixture::Fixture;
use crate::report::Verdict;
use crate::run::{Select, with_each_case};

/// Runs the suite on these fixtures as tests: one for each case, card and scheme.
///
/// The process's arguments are those of any Rust test. One test runs at a time, since the state of
/// a card is global.
pub fn test_main(fixtures: Vec<Box<dyn Fixture>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for fixture in fixtures {
        let fixture: Arc<dyn Fixture> = Arc::from(fixture);
        let listed = with_each_case(&fixture, &Select::default(), |name, case| {
            trials.push(Trial::ignorable_test(name, move || match case() {
                Verdict::Fail { message } => Err(Failed::from(message)),
                Verdict::Pass => Ok(Completion::Completed),
                Verdict::Skip { reason } => Ok(Completion::ignored_with(reason)),
            }));
        });
        if let Err(why) = listed {
            let name = format!("{}::opens", fixture.name());
            trials.push(Trial::test(name, move || Err(Failed::from(why))));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What an example of `package` became: a stand-in for a vendor's library, say. `cargo test` builds a
/// package's own examples beside its tests.
///
/// # Panics
/// Outside a test, and where it is not built, with the command that builds it.
pub fn built_example(package: &str, name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let path = profile.join("examples").join(name);
    let release = if profile.ends_with("release") { " --release" } else { "" };
    assert!(
        path.exists(),
        "{} is not built; run: cargo build --examples -p {package}{release}",
        path.display()
    );
    path
}

/// Makes the suite on one or several fixtures the main function of a test.
///
/// ```ignore
/// // tests/conformance.rs, with `harness = false` in Cargo.toml
/// vgpu_conformance::conformance_tests!(MyFixture::new());
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($($fixture:expr),+ $(,)?) => {
        fn main() -> ::std::process::ExitCode {
            $crate::test_main(::std::vec![$(::std::boxed::Box::new($fixture)),+])
        }
    };
}
