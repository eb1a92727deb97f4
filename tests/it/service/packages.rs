//! The recipes of packages, as far as that can be said without the systems that they are for.

use std::{fs, path::Path};

use crate::lifecycle::{Home, check, output};

fn recipe(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)).unwrap()
}

#[test]
fn recipes_name_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(recipe("aur/PKGBUILD").contains(&format!("\npkgver={version}\n")));
    let formula = recipe("homebrew/lovable.rb");
    assert!(formula.contains(&format!("/lovable-{version}.tar.gz\"")), "{formula}");
    assert!(recipe("nix/package.nix").contains("lib.importTOML ../../Cargo.toml"));
}

#[test]
fn every_file_that_a_recipe_takes_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["deb", "aur/PKGBUILD", "nix/package.nix"] {
        let text = recipe(name);
        for file in [
            "systemd/lovable.sysusers",
            "systemd/lovable.tmpfiles",
            "systemd/system/lovabled.service",
            "systemd/system/lovabled.socket",
            "systemd/user/lovabled.service",
            "systemd/user/lovabled.socket",
        ] {
            let last = file.rsplit('/').next().unwrap();
            let units = text.contains("lovabled.{service,socket}");
            assert!(text.contains(last) || units, "{name} leaves out {file}");
            assert!(root.join(file).exists(), "{file}");
        }
        for words in ["completions", "man --dir"] {
            assert!(text.contains(words), "{name} leaves out {words}");
        }
    }
}

#[tokio::test]
async fn shells_can_read_what_packages_run() {
    let home = Home::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    for (shell, names) in [
        ("bash", &["deb", "build", "aur/PKGBUILD"][..]),
        ("sh", &["debian/postinst", "debian/prerm", "debian/postrm"]),
    ] {
        for name in names {
            let mut parse = home.command(shell);
            parse.arg("-n").arg(root.join(name));
            check(&output(parse).await, 0, &[]);
        }
    }
}
