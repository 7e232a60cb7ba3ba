# A template for a Homebrew tap of your own: set url and sha256 to a release's sdist. MLX exists as wheels only, which
# Homebrew's own Python resources do not take, so uv installs the pinned versions into the formula's folder.
class Squish < Formula
  desc "Run large language models on your own machine with MLX"
  homepage "https://example.org/squish"
  url "https://example.org/squish-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.12"
  depends_on "uv" => :build

  def install
    python = Formula["python@3.12"].opt_bin/"python3.12"
    system "uv", "venv", "--python", python, libexec
    system "uv", "pip", "install", "--python", libexec/"bin/python", "-r", "requirements.lock"
    system "uv", "pip", "install", "--python", libexec/"bin/python", "--no-deps", "."
    bin.install_symlink libexec/"bin/squish"
    generate_completions_from_executable(bin/"squish", "completion", shells: [:bash, :zsh, :fish])
  end

  service do
    run [opt_bin/"squish", "serve"]
    keep_alive successful_exit: false
    log_path var/"log/squish.log"
    error_log_path var/"log/squish.log"
  end

  test do
    system bin/"squish", "--version"
  end
end
