//! Timing, floors and the table.

use std::time::Instant;

use candle_core::Device;
use clsgen::{error::Result, ops::cuda};

use crate::training::peak_mb;

/// What a piece of work cannot do without: bytes read and written once, and operations of matrix products.
#[derive(Clone, Copy)]
pub struct Work {
    pub bytes: f64,
    pub operations: f64,
}

/// Rates of this device as measured, a second. Not a number until they are.
pub struct Ceilings {
    pub bytes: f64,
    pub operations: f64,
}

/// The rows so far.
pub struct Report {
    device: Device,
    pub ceilings: Ceilings,
    rows: Vec<[String; 7]>,
}

const HEADINGS: [&str; 7] = ["work", "ms", "rate", "floor, ms", "bound by", "% of floor", "peak GB"];
/// Seconds one sample takes at least, by repetition.
const SAMPLE: f64 = 0.02;
const SAMPLES: usize = 7;
const MOST_REPETITIONS: f64 = 500.0;

impl Report {
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), ceilings: Ceilings { bytes: f64::NAN, operations: f64::NAN }, rows: Vec::new() }
    }

    /// Does what may fail; a failure becomes a row, and what it held is free again.
    pub fn attempt(&mut self, work: &str, run: impl FnOnce(&mut Self) -> Result<()>) {
        if let Err(error) = run(self) {
            let said = error.to_string();
            self.row(
                work,
                None,
                format!("failed: {}", said.lines().next().unwrap_or_default().replace('|', "/")),
                None,
            );
        }
    }

    /// Times calls of `run`, as many as it takes to measure them, and adds the row of it.
    pub fn kernel<T>(&mut self, name: &str, work: Work, run: impl FnMut() -> Result<T>) {
        match self.time(run) {
            Ok(seconds) => {
                let rate = if work.operations > 0.0 {
                    format!("{:.1} TFLOP/s", work.operations / seconds / 1e12)
                } else {
                    format!("{:.0} GB/s", work.bytes / seconds / 1e9)
                };
                self.row(name, Some(seconds), rate, Some(work));
            }
            Err(error) => self.attempt(name, |_| Err(error)),
        }
    }

    /// Median seconds of one call. The first two calls load what they need and do not count.
    pub fn time<T>(&self, mut run: impl FnMut() -> Result<T>) -> Result<f64> {
        let mut sample = |repetitions: usize| -> Result<f64> {
            self.device.synchronize()?;
            let start = Instant::now();
            for _ in 0..repetitions {
                run()?;
            }
            self.device.synchronize()?;
            Ok(start.elapsed().as_secs_f64() / repetitions as f64)
        };
        sample(1)?;
        let repetitions = (SAMPLE / sample(1)?).ceil().clamp(1.0, MOST_REPETITIONS) as usize;
        let mut seconds = (0..SAMPLES).map(|_| sample(repetitions)).collect::<Result<Vec<f64>>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[SAMPLES / 2])
    }

    /// Adds a row; the peak is that of the memory since the row before.
    pub fn row(&mut self, name: &str, seconds: Option<f64>, rate: String, work: Option<Work>) {
        let peak = cuda::take_peak_memory(&self.device).map_or_else(|| peak_mb() / 1e3, |bytes| bytes as f64 / 1e9);
        let floors = work.map(|work| (work.bytes / self.ceilings.bytes, work.operations / self.ceilings.operations));
        let floor = floors
            .map(|(memory, products)| if products > memory { (products, "products") } else { (memory, "memory") });
        let row = [
            name.to_owned(),
            seconds.map_or_else(String::new, |seconds| format!("{:.4}", seconds * 1e3)),
            rate,
            floor.map_or_else(String::new, |(floor, _)| format!("{:.4}", floor * 1e3)),
            floor.map_or_else(String::new, |(_, by)| by.to_owned()),
            floor
                .zip(seconds)
                .map_or_else(String::new, |((floor, _), seconds)| format!("{:.0}", 100.0 * floor / seconds)),
            format!("{peak:.2}"),
        ];
        eprintln!("{}", row.join(" · "));
        self.rows.push(row);
    }

    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head = line(&HEADINGS.map(str::to_owned)) + &"|---".repeat(HEADINGS.len()) + "|\n";
        head + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }
}
