//! `--device`, for every command that computes.

use crate::device::Device;
use crate::device::choice::DeviceChoice;
use crate::error::Result;

#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N. On a GPU weights and activations are bf16, on the CPU f32
    #[arg(long, default_value_t = DeviceChoice::Auto, value_name = "DEVICE")]
    device: DeviceChoice,
}

impl DeviceArgs {
    /// Opens the device, says on stderr which one it is, and runs `f` with it. What fails while the
    /// device is left counts too.
    pub(super) fn run<T>(self, f: impl FnOnce(&Device) -> Result<T>) -> Result<T> {
        let (device, description) = self.device.open()?;
        super::note(&format!("device    {description}"));
        let result = f(&device);
        let closed = device.close();
        result.and_then(|value| closed.map(|()| value))
    }
}
