//! Headless Chromium, and a page that works the report and writes down what it saw.

use std::{path::Path, process::Command};

use crate::common;

/// Chromium, if it is here.
pub fn chromium() -> Option<Command> {
    let name = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    let Some(name) = name else {
        common::skip("no chromium here (Debian: apt-get install chromium)");
        return None;
    };
    let mut command = Command::new(name);
    // Every request that leaves this machine would be an error of ours: there is no proxy to answer.
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--no-first-run",
    ]);
    command.args([
        "--proxy-server=127.0.0.1:9",
        "--enable-logging=stderr",
        "--allow-file-access-from-files",
        "--virtual-time-budget=20000",
    ]);
    Some(command)
}

/// The page after its scripts have run, and what the console said.
pub fn browse(mut chromium: Command, profile: &Path, page: &Path) -> (String, Vec<String>) {
    let url = format!("file://{}", page.display());
    let output =
        chromium.arg(format!("--user-data-dir={}", profile.display())).args(["--dump-dom", &url]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let console = stderr.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

/// Opens the report in frames of these widths, works its filter, and leaves what it saw as JSON.
pub const HARNESS: &str = r#"<!doctype html><body><pre id="seen"></pre><script>
const look = (width) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => {
    const page = frame.contentDocument, view = frame.contentWindow, seen = { width: view.innerWidth };
    const fits = () => page.documentElement.scrollWidth <= view.innerWidth;
    const items = () => [...page.querySelectorAll(".record")];
    seen.fits = fits();
    seen.dark = view.matchMedia("(prefers-color-scheme: dark)").matches;
    // Contrast of text as WCAG 2 has it, the least on the page.
    const rgb = (color) => color.match(/[\d.]+/g).map(Number);
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const weights = [0.2126, 0.7152, 0.0722];
    const luminance = (color) => weights.reduce((sum, weight, i) => sum + weight * linear(color[i] / 255), 0);
    const behind = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const color = rgb(view.getComputedStyle(at).backgroundColor);
        if (color.length === 3 || color[3] > 0) return color;
      }
      return [255, 255, 255];
    };
    const contrast = (node) => {
      const both = [rgb(view.getComputedStyle(node).color), behind(node)].map(luminance);
      return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    };
    const hasText = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const texts = () => [...page.querySelectorAll("body *")]
      .filter((node) => hasText(node) && !node.closest("svg, script, style, noscript, :disabled"));
    seen.contrast = Math.min(...texts().map(contrast));
    seen.figures = page.querySelectorAll("figure svg text").length > 20;
    const focusable = [...page.querySelectorAll("a, select, input, button, summary, [tabindex]")];
    seen.focusable = focusable.every((node) => node.tabIndex >= 0);
    const filter = page.getElementById("filter");
    if (filter) {
      const choose = (value) => { filter.value = value; filter.dispatchEvent(new view.Event("change")); };
      const total = () => Number(page.getElementById("shown").textContent.match(/of (\d+)/)[1]);
      seen.all = total();
      choose("disagree");
      seen.disagree = total();
      seen.onlyDisagreeing = items().length > 0 && items().every((item) => item.dataset.disagree === "true");
      const first = page.getElementById("list").textContent;
      page.getElementById("next").click();
      seen.paged = page.getElementById("list").textContent !== first;
      choose("unparsable");
      seen.unparsable = total();
      choose("all");
      items()[1].open = true;
      setTimeout(() => {
        const opened = items()[1].textContent;
        seen.opened = opened.includes("SECRET <\/script><b>reason</b> & 1") && opened.includes("SECRET note 1 ");
        seen.marks = [...items()[1].querySelectorAll("mark")].map((mark) => mark.textContent);
        seen.invented = items()[1].querySelector("mark.invented")?.textContent;
        seen.contrast = Math.min(...texts().map(contrast));
        seen.noMarkup = items()[1].querySelector("b b, .text b") === null;
        seen.fits = seen.fits && fits();
        done(seen);
      }, 200);
    } else done(seen);
  };
  frame.src = "run/eval/predictions/report.html";
  document.body.append(frame);
});
Promise.all([1280, 390].map(look)).then((seen) => {
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>"#;
