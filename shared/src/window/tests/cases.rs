use super::*;

#[test]
fn zzz_bench() {
    let mut rules = vec![Rule {
        aggregates: ["count", "mean", "min", "max", "stddev"].map(|a| a.parse().unwrap()).to_vec(),
        ..Rule::new("avg-10s", Kind::Tumbling { size: Span::Ms(10_000) })
    }];
    let n = 1_000_000_usize;
    let texts: Vec<Vec<u8>> = (0..n)
        .map(|i| {
            let d = i * 7919 % 1000;
            let t = 1_790_000_000_000_i64 + (i / 1000) as i64 * 1000;
            format!(r#"{{"device":"device-{d:04}","time":{t},"values":{{"t":{:.2},"h":{:.1},"n":{}}},"tags":{{"line":"3"}},"received":{},"clock":"trusted"}}"#, 20.0 + (i % 977) as f64 / 100.0, 40.0 + (i % 57) as f64 / 10.0, i % 1000, t + 42).into_bytes()
        })
        .collect();
    println!("BENCH bytes {}", texts[5].len());
    for round in 0..4 {
        if round == 3 { rules[0].fields = ["t", "h", "n"].map(str::to_owned).to_vec(); }
        let mut reading = Reading::default();
        let begin = std::time::Instant::now();
        for t in &texts { reading.parse(t).unwrap(); std::hint::black_box(&reading); }
        let parse = begin.elapsed().as_nanos() as f64 / n as f64;
        let mut engine = Engine::new(rules.clone(), Limits::default(), &no_filter).unwrap();
        let mut out = Outputs::default();
        let mut count = 0;
        let begin = std::time::Instant::now();
        for t in &texts {
            reading.parse(t).unwrap();
            engine.reading(&reading, reading.received, &mut out);
            if out.len() > 100 { count += out.len(); out.clear(); }
        }
        let both = begin.elapsed().as_nanos() as f64 / n as f64;
        println!("BENCH parse {parse:.0} ns, parse+window {both:.0} ns, windows {count}, value bytes {}", engine.snapshot()[1].1.len());
    }
}
