//! `--device`: what the user asks for, and what it becomes.

use super::Device;
use crate::cuda::CudaDevice;
use crate::error::Result;
use std::fmt;
use std::str::FromStr;

/// Which device to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number; anything else is an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => "0",
            _ => text.strip_prefix("cuda:").unwrap_or("?"),
        };
        ordinal.parse().map(Self::Cuda).map_err(|_| "expected auto, cpu, cuda or cuda:N".into())
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device, and says which it is, and for [`Self::Auto`] why.
    ///
    /// Errors: a GPU was asked for and cannot be used. The CPU never takes its place unasked.
    pub fn open(self) -> Result<(Device, String)> {
        match self {
            Self::Cpu => Ok((Device::Cpu, "cpu".into())),
            Self::Cuda(ordinal) => {
                let device = Device::Cuda(CudaDevice::open(ordinal)?);
                let text = device.describe();
                Ok((device, text))
            }
            Self::Auto => match CudaDevice::open(0) {
                Ok(cuda) => {
                    let device = Device::Cuda(cuda);
                    let text = format!("{} (--device auto)", device.describe());
                    Ok((device, text))
                }
                Err(error) => {
                    // The first line says what is missing; the rest how to get it.
                    let reason = error.to_string();
                    let reason = reason.lines().next().unwrap_or_default();
                    let reason = reason.trim_start_matches("device: ");
                    Ok((Device::Cpu, format!("cpu (--device auto: {reason})")))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_back_as_they_print() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:7", DeviceChoice::Cuda(7)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "cuda:99999999999999999999"] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
    }
}
