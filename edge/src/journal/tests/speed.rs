//! How fast it is: to be run by hand.
use super::*;

#[test]
fn speed() {
    let folder = Folder::new("speed");
    let (mut writer, _) = open(&folder.0, 1, 4 << 20);
    let value = "x".repeat(150);
    let begun = weir_shared::clock::instant();
    let mut appending = std::time::Duration::ZERO;
    for _ in 0..300 {
        let at = weir_shared::clock::instant();
        for i in 0..1000 {
            append(&mut writer, i, &value);
        }
        appending += at.elapsed();
        commit(&mut writer);
    }
    let all = begun.elapsed();
    println!(
        "300 commits of 1000: {all:?}, of that appending {appending:?}: {} frames/s",
        300_000.0 / all.as_secs_f64()
    );
}
