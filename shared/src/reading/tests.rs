use super::*;

fn parse(text: &str) -> Result<Reading<'_>, NotAReading> {
    let mut reading = Reading::default();
    reading.parse(text.as_bytes()).map(|()| reading)
}
