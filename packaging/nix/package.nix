# Nix: nix-build -E '(import <nixpkgs> {}).callPackage ./packaging/nix/package.nix {}'
{ lib, rustPlatform, installShellFiles }:

rustPlatform.buildRustPackage {
  pname = "lovable";
  version = (lib.importTOML ../../Cargo.toml).package.version;

  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];

  # The tests of the whole programs want model servers, a network and a shell.
  cargoTestFlags = [ "--lib" ];

  postInstall = ''
    for shell in bash zsh fish; do
      $out/bin/lovablectl completions $shell > lovablectl.$shell
    done
    installShellCompletion --cmd lovablectl \
      --bash lovablectl.bash --zsh lovablectl.zsh --fish lovablectl.fish
    $out/bin/lovablectl man --dir $out/share/man/man1
    for scope in system user; do
      install -Dm644 -t $out/lib/systemd/$scope systemd/$scope/lovabled.service systemd/$scope/lovabled.socket
      substituteInPlace $out/lib/systemd/$scope/lovabled.service \
        --replace-fail "ExecStart=lovabled" "ExecStart=$out/bin/lovabled"
    done
    install -Dm644 systemd/lovable.sysusers $out/lib/sysusers.d/lovable.conf
    install -Dm644 systemd/lovable.tmpfiles $out/lib/tmpfiles.d/lovable.conf
  '';

  meta = {
    description = "One door to the model servers of this machine";
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "lovabled";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
