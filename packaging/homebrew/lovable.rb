# Homebrew formula. Put a tarball of the source beside it and name its hash:
#
#   git archive --prefix=lovable-0.1.0/ -o lovable-0.1.0.tar.gz HEAD
#   brew install --build-from-source ./lovable.rb
class Lovable < Formula
  desc "One door to the model servers of this machine"
  homepage "file://#{__dir__}/README.md"
  url "file://#{__dir__}/lovable-0.1.0.tar.gz"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    generate_completions_from_executable(bin/"lovablectl", "completions", shells: [:bash, :zsh, :fish])
    system bin/"lovablectl", "man", "--dir", "man1"
    man1.install Dir["man1/*.1"]
    doc.install "config/lovable.example.toml"
  end

  def caveats
    <<~TEXT
      To have the daemon started with your session, and again when it dies:
        lovablectl service install
    TEXT
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/lovabled --version")
    assert_match "the defaults hold", shell_output("#{bin}/lovabled --check-config 2>&1")
  end
end
