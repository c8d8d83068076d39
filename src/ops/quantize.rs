//! Quantisation of a frozen matrix: codes of 4 or 8 bits, scales in f32, and the matrix they stand for.
//!
//! | format | codes | scale | a number is |
//! |---|---|---|---|
//! | nf4 | 4 bits, two a byte, the first in the upper half | largest magnitude of 64 | `NF4[code] · scale` |
//! | int8 | 8 bits, signed | largest magnitude of a row | `code · scale · (1/127)` |
//! | fp8 | 8 bits, [`e4m3`] | largest magnitude of a row, over 448 | `e4m3(code) · scale` |
//!
//! The 64 numbers follow each other row by row. nf4 is that of QLoRA (Dettmers et al. 2023).
//! nf4 and int8 are bitsandbytes' formats, without double quantisation (nf4) and without outlier columns (int8); codes,
//! scales and dequantised numbers have the bits of its CPU implementation. A matrix in one of them is dequantised for
//! each use; [`fp8`] multiplies the codes.

#[cfg(feature = "cuda")]
mod cuda;
pub mod e4m3;
pub mod fp8;

use std::mem::MaybeUninit;

use candle_core::{DType, Device, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::{
    cast::bf16_bits,
    cpu::{
        par_for::ParFor,
        slice::{View, Weight, init_with},
    },
    linear::pack::Element,
};
use crate::error::{Error, Result};

/// Numbers that share a scale in nf4.
pub const BLOCK: usize = 64;

/// The sixteen values of nf4: quantiles of a normal distribution, scaled to ±1, one of them 0 (QLoRA, appendix E).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// 1/127 as f32.
const OF_127: f32 = 7.874_016e-3;

/// How a matrix is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 4 bits a number.
    Nf4,
    /// 8 bits a number.
    Int8,
    /// 8 bits a number, which products take as they are.
    Fp8,
}

impl Format {
    /// Bytes that a matrix `(rows, columns)` takes; in fp8 CUDA holds it a second time, transposed.
    pub fn bytes(self, rows: usize, columns: usize, cuda: bool) -> usize {
        let (codes, scales) = self.lengths(rows, columns);
        let again = if self == Self::Fp8 && cuda { codes + columns * size_of::<f32>() } else { 0 };
        codes + scales * size_of::<f32>() + again
    }

    /// Bytes of codes, number of scales.
    fn lengths(self, rows: usize, columns: usize) -> (usize, usize) {
        let n = rows * columns;
        match self {
            Self::Nf4 => (n.div_ceil(2), n.div_ceil(BLOCK)),
            Self::Int8 | Self::Fp8 => (n, rows),
        }
    }
}

/// A quantised matrix.
#[derive(Debug, Clone)]
pub struct Quantized {
    format: Format,
    /// `(rows, columns)` of the matrix.
    shape: (usize, usize),
    /// Bytes.
    codes: Tensor,
    /// f32.
    scales: Tensor,
    /// What fp8's backward multiplies by.
    #[cfg(feature = "cuda")]
    transposed: Option<fp8::Transposed>,
}

impl Quantized {
    /// Quantises `weight (rows, columns)`, f32 or bf16, on the CPU.
    pub fn new(weight: &Tensor, format: Format) -> Result<Self> {
        let (rows, columns) = weight.dims2()?;
        let weight = weight.contiguous()?;
        let view = View::of(&weight)?;
        let (codes, scales) = match view.weight()? {
            Weight::F32(values) => encode(format, values, rows, columns),
            Weight::Bf16(values) => encode(format, values, rows, columns),
        };
        let count = codes.len();
        Ok(Self {
            format,
            shape: (rows, columns),
            codes: Tensor::from_vec(codes, count, &Device::Cpu)?,
            scales: Tensor::from_slice(&scales, scales.len(), &Device::Cpu)?,
            #[cfg(feature = "cuda")]
            transposed: None,
        })
    }

    /// How it is quantised.
    pub fn format(&self) -> Format {
        self.format
    }

    /// `(rows, columns)`.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// The bytes of its codes and its scales, on the host.
    pub fn parts(&self) -> Result<(Vec<u8>, Vec<f32>)> {
        Ok((self.codes.to_vec1()?, self.scales.to_vec1()?))
    }

    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if self.format == Format::Fp8 && device.is_cuda() {
            return fp8::to_cuda(self, device);
        }
        Ok(Self { codes: self.codes.to_device(device)?, scales: self.scales.to_device(device)?, ..self.clone() })
    }

    /// The matrix that it stands for, `(rows, columns)` in f32 or bf16 (rounded to nearest), where the codes are.
    pub fn dequantize(&self, dtype: DType) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self.codes.device().is_cuda() {
            return cuda::dequantize(self, dtype);
        }
        let codes = View::of(&self.codes)?;
        let scales = View::of(&self.scales)?;
        let codes = codes.u8()?;
        let scales = scales.f32()?;
        match dtype {
            DType::F32 => Ok(Tensor::from_vec(self.decode(codes, scales, |x| x), self.shape, &Device::Cpu)?),
            DType::BF16 => {
                let round = |x| bf16::from_bits(bf16_bits(x) as u16);
                Ok(Tensor::from_vec(self.decode(codes, scales, round), self.shape, &Device::Cpu)?)
            }
            _ => Err(Error::run(format!("a quantised matrix is not made {dtype:?}"))),
        }
    }

    fn decode<T: Send + Sync>(&self, codes: &[u8], scales: &[f32], store: impl Fn(f32) -> T + Sync) -> Vec<T> {
        let (rows, columns) = self.shape;
        let write = |[y]: [&mut [MaybeUninit<T>]; 1]| match self.format {
            Format::Nf4 => {
                let blocks = y.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK / 2)).zip(scales.par_iter());
                blocks.with_min_len(256).par_for_each(|((y, codes), scale)| {
                    for (i, y) in y.iter_mut().enumerate() {
                        let byte = codes[i / 2];
                        let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
                        y.write(store(NF4[usize::from(code)] * scale));
                    }
                });
            }
            Format::Int8 | Format::Fp8 => {
                let number = |code: u8, scale: f32| match self.format {
                    Format::Fp8 => e4m3::decode(code) * scale,
                    _ => f32::from(code.cast_signed()) * scale * OF_127,
                };
                let rows =
                    y.par_chunks_mut(columns.max(1)).zip(codes.par_chunks(columns.max(1))).zip(scales.par_iter());
                rows.par_for_each(|((y, codes), scale)| {
                    for (y, code) in y.iter_mut().zip(codes) {
                        y.write(store(number(*code, *scale)));
                    }
                });
            }
        };
        // SAFETY: there is a byte of codes for every one or two numbers and a scale for every block or row of them
        // (`encode` made as many), so that each number is written.
        #[allow(unsafe_code)]
        let [y] = unsafe { init_with([rows * columns], write) };
        y
    }
}

fn encode<T: Element>(format: Format, values: &[T], rows: usize, columns: usize) -> (Vec<u8>, Vec<f32>) {
    let (bytes, scales) = format.lengths(rows, columns);
    let mut codes = vec![0; bytes];
    let mut maxima = vec![0.0; scales];
    let largest = |values: &[T]| values.iter().fold(0.0f32, |max, value| max.max(value.widen().abs()));
    match format {
        Format::Nf4 => {
            let bounds = bounds();
            let blocks = codes.par_chunks_mut(BLOCK / 2).zip(values.par_chunks(BLOCK)).zip(maxima.par_iter_mut());
            blocks.with_min_len(256).par_for_each(|((codes, values), scale)| {
                *scale = largest(values);
                let inverse = 1.0 / scale.max(1e-38);
                let code = |value: &T| nearest(&bounds, (value.widen() * inverse).clamp(-1.0, 1.0));
                for (byte, pair) in codes.iter_mut().zip(values.chunks(2)) {
                    *byte = code(&pair[0]) << 4 | pair.get(1).map_or(0, code);
                }
            });
        }
        Format::Int8 => {
            let width = columns.max(1);
            let all = codes.par_chunks_mut(width).zip(values.par_chunks(width)).zip(maxima.par_iter_mut());
            all.par_for_each(|((codes, values), scale)| {
                *scale = largest(values);
                // A row of zeros has no scale to divide by.
                // As PyTorch divides a number by a tensor.
                let factor = if *scale > 0.0 { scale.recip() * 127.0 } else { 0.0 };
                for (code, value) in codes.iter_mut().zip(values) {
                    *code = ((value.widen() * factor).round_ties_even() as i8).cast_unsigned();
                }
            });
        }
        Format::Fp8 => {
            let width = columns.max(1);
            let all = codes.par_chunks_mut(width).zip(values.par_chunks(width)).zip(maxima.par_iter_mut());
            all.par_for_each(|((codes, values), scale)| {
                *scale = fp8::scale(largest(values));
                for (code, value) in codes.iter_mut().zip(values) {
                    *code = e4m3::encode(value.widen() / *scale);
                }
            });
        }
    }
    (codes, maxima)
}

/// Half way between neighbouring values of nf4.
fn bounds() -> [f32; 15] {
    std::array::from_fn(|i| (NF4[i] + NF4[i + 1]) / 2.0)
}

/// The code whose value is nearest; half way between two, the lower.
fn nearest(bounds: &[f32; 15], x: f32) -> u8 {
    bounds.iter().map(|&bound| u8::from(x > bound)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tests::random;

    fn matrix(rows: usize, columns: usize) -> Tensor {
        Tensor::from_vec(random(7, rows * columns), (rows, columns), &Device::Cpu).unwrap()
    }

    #[test]
    fn what_is_one_of_the_values_comes_back_as_it_was() {
        let all: Vec<f32> = (0..2 * BLOCK).map(|i| 0.5 * NF4[i % 16]).collect();
        let weight = Tensor::from_vec(all.clone(), (2, BLOCK), &Device::Cpu).unwrap();
        let back = Quantized::new(&weight, Format::Nf4).unwrap().dequantize(DType::F32).unwrap();
        assert_eq!(back.flatten_all().unwrap().to_vec1::<f32>().unwrap(), all);
        let all: Vec<f32> = (-127..=127).map(|i| i as f32 * 2.0 / 127.0).collect();
        let weight = Tensor::from_vec(all.clone(), (1, 255), &Device::Cpu).unwrap();
        let back = Quantized::new(&weight, Format::Int8).unwrap().dequantize(DType::F32).unwrap();
        for (was, is) in all.iter().zip(back.flatten_all().unwrap().to_vec1::<f32>().unwrap()) {
            assert!((was - is).abs() < 1e-6, "{was} {is}");
        }
    }

    #[test]
    fn zeros_stay_zero_and_odd_sizes_have_all_their_numbers() {
        for format in [Format::Nf4, Format::Int8, Format::Fp8] {
            for (rows, columns) in [(1, 1), (3, 7), (2, 64), (5, 129)] {
                let zeros = Tensor::zeros((rows, columns), DType::F32, &Device::Cpu).unwrap();
                let back = Quantized::new(&zeros, format).unwrap().dequantize(DType::F32).unwrap();
                assert_eq!(back.to_vec2::<f32>().unwrap(), vec![vec![0.0; columns]; rows]);
                let weight = matrix(rows, columns);
                let quantized = Quantized::new(&weight, format).unwrap();
                let (codes, scales) = quantized.parts().unwrap();
                assert_eq!(codes.len() + 4 * scales.len(), format.bytes(rows, columns, false));
                let back = quantized.dequantize(DType::F32).unwrap();
                let largest = weight.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                let apart = (&back - &weight).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                // Half the widest gap between two values.
                let gap = match format {
                    Format::Nf4 => 0.152,
                    Format::Int8 => 0.5 / 127.0,
                    Format::Fp8 => 16.0 / 448.0,
                };
                assert!(apart <= 1.001 * gap * largest, "{format:?} {rows} x {columns}: {apart} of {largest}");
            }
        }
    }

    #[test]
    fn bf16_is_f32_rounded() {
        for format in [Format::Nf4, Format::Int8, Format::Fp8] {
            let quantized = Quantized::new(&matrix(4, 96), format).unwrap();
            let wide = quantized.dequantize(DType::F32).unwrap().to_dtype(DType::BF16).unwrap();
            let half = quantized.dequantize(DType::BF16).unwrap();
            assert_eq!(half.to_vec2::<bf16>().unwrap(), wide.to_vec2::<bf16>().unwrap());
        }
    }
}
