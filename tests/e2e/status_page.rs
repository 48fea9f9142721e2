//! The status page of both programs in a real browser, while readings go through them.
//!
//! Must hold: every part shows figures; nothing is said on the console; a phone's width scrolls nothing sideways; the first
//! key leads to the figures; light and dark can be chosen. `WEIR_PICTURES=folder` keeps pictures of what was seen.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use weir_harness::browser::Browser;
use weir_harness::programs::{Program, Programs};

const SHOWN: Duration = Duration::from_secs(30);
const DESK: (u32, u32) = (1280, 1600);
const PHONE: (u32, u32) = (360, 800);
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

/// Parts of the page that must show a figure, not a dash.
const EDGE: [&str; 5] = ["sources", "decode", "journal", "windows", "kafka"];
const CLOUD: [&str; 8] = [
    "kafka-in",
    "deduplicate",
    "join",
    "rules",
    "outputs",
    "sink-mysql",
    "sink-elasticsearch",
    "sink-clickhouse",
];
/// Tables that must have a row.
const EDGE_TABLES: [&str; 2] = ["latency", "dead-letters"];
const CLOUD_TABLES: [&str; 5] = ["latency", "dead-letters", "rules", "dimensions", "alerts"];

/// Looks at the pages of both programs; they run, and readings go through them.
pub(crate) fn shows(programs: &Programs<'_>, port: u16) -> Result<()> {
    let browser = Browser::open(port)?;
    for (program, boxes, tables) in
        [(Program::Edge, &EDGE[..], &EDGE_TABLES[..]), (Program::Cloud, &CLOUD[..], &CLOUD_TABLES[..])]
    {
        browser.look(DESK, "light")?;
        browser.go(&format!("http://{}/", programs.address(program)))?;
        browser.wait_for("document.querySelector('#state').dataset.state === 'running'", SHOWN)?;
        for name in boxes {
            let figure = format!("document.querySelector('[data-box={name}] .main strong')");
            browser.wait_for(&format!("{figure} && /[0-9]/.test({figure}.textContent)"), SHOWN)?;
        }
        for name in tables {
            browser.wait_for(&format!("document.querySelector('[data-table={name}] tbody tr')"), SHOWN)?;
        }
        // Readings go through, so a rate is there.
        let rate = format!(
            "parseFloat(document.querySelector('[data-box={}] .main strong').textContent) > 0",
            boxes[0]
        );
        browser.wait_for(&rate, SHOWN)?;
        by_hand(&browser)?;
        for (size, name) in [(DESK, "desk"), (PHONE, "phone")] {
            for scheme in ["light", "dark"] {
                browser.look(size, scheme)?;
                browser.wait_for(&format!("document.documentElement.dataset.theme === '{scheme}'"), SHOWN)?;
                let width = browser.eval("return document.documentElement.scrollWidth")?;
                ensure!(
                    width.as_u64() <= Some(size.0.into()),
                    "{name}: {width} px are wider than {}",
                    size.0
                );
                if let Some(folder) = std::env::var_os("WEIR_PICTURES") {
                    let file = format!("{}-{name}-{scheme}.png", program.name());
                    browser.picture(&std::path::Path::new(&folder).join(file))?;
                }
            }
        }
        let said = browser.console()?;
        ensure!(said.is_empty(), "the console of {} says {said:?}", program.name());
    }
    Ok(())
}

/// A page that wants a token: a wrong one is refused with what to do, a right one shows the figures.
pub(crate) fn opens_with(token: &str, url: &str, port: u16) -> Result<()> {
    let browser = Browser::open(port)?;
    browser.go(url)?;
    let state = |name: &str| format!("document.querySelector('#state').dataset.state === '{name}'");
    let refused = |why: &str| format!("document.querySelector('#refusal').textContent.includes('{why}')");
    browser.wait_for(&refused("a token is needed"), SHOWN)?;
    // The cursor stands in the field.
    browser.press(&format!("guessed-0123456789{ENTER}"))?;
    browser.wait_for(&refused("this token is not known"), SHOWN)?;
    browser.wait_for(&state("locked"), SHOWN)?;
    browser.press(&format!("{token}{ENTER}"))?;
    browser.wait_for(&state("running"), SHOWN)?;
    Ok(())
}

/// The keyboard alone, and what is searched for.
fn by_hand(browser: &Browser) -> Result<()> {
    browser.press(TAB)?;
    let focused = browser.eval("return document.activeElement.textContent")?;
    ensure!(focused == json!("Skip to the figures"), "the first key leads to {focused}");
    browser.eval("document.querySelector('#samples').open = true; const s = document.querySelector('#search'); s.value = 'weir_ready'; s.dispatchEvent(new Event('input'))")?;
    browser.wait_for("document.querySelectorAll('[data-table=samples] tbody tr').length === 1", SHOWN)?;
    browser.eval("document.querySelector('#samples').open = false")?;
    Ok(())
}
