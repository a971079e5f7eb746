//! Which instruction set the kernels run on: found once, overridable by the environment.

use std::fmt;

#[cfg(target_arch = "aarch64")]
use super::simd::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Kernel, Scalar};
use crate::error::{Error, Result};

/// Environment variable that names the instruction set to use instead of the best.
const OVERRIDE: &str = "SAM3_ISA";

/// An instruction set this processor has. Values come from [`Isa::available`], [`Isa::best`] and [`Isa::named`] alone.
#[derive(Clone, Copy)]
pub struct Isa(Token);

/// The tokens carry the proof, hence no `Isa` of an absent instruction set exists.
#[derive(Clone, Copy)]
enum Token {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Isa {
    /// What this processor has, best first; never empty.
    pub fn available() -> Vec<Self> {
        let found = [
            #[cfg(target_arch = "x86_64")]
            Avx512::detect().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Avx2::detect().map(Token::Avx2),
            #[cfg(target_arch = "aarch64")]
            Neon::detect().map(Token::Neon),
            Some(Token::Scalar(Scalar)),
        ];
        found.into_iter().flatten().map(Self).collect()
    }

    /// The best of [`Isa::available`].
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// The instruction set of that name: `scalar`, `avx2`, `avx512` or `neon`.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidArgument`] if there is none of the name, or this processor lacks it; the message
    /// names those it has.
    pub fn named(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
            let names: Vec<_> = available.iter().map(Self::name).collect();
            Error::invalid(format!("instruction set: expected one of {} here, found {name:?}", names.join(", ")))
        })
    }

    /// What the environment variable `SAM3_ISA` names, the best where it is unset or empty.
    ///
    /// # Errors
    /// As [`Isa::named`].
    pub fn from_env() -> Result<Self> {
        match std::env::var_os(OVERRIDE) {
            Some(name) if !name.is_empty() => Self::named(&name.to_string_lossy()).map_err(|e| e.at(OVERRIDE)),
            _ => Ok(Self::best()),
        }
    }

    /// `scalar`, `avx2`, `avx512` or `neon`.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Token::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => "neon",
        }
    }

    /// Runs `k` compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, k: K) -> K::Output {
        match self.0 {
            Token::Scalar(s) => s.run(k),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(s) => s.run(k),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(s) => s.run(k),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(s) => s.run(k),
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_same_set() {
        let available = Isa::available();
        assert_eq!(available.last().unwrap().name(), "scalar");
        for isa in available {
            assert_eq!(Isa::named(isa.name()).unwrap().name(), isa.name());
        }
    }

    #[test]
    fn unknown_names_are_told_what_there_is() {
        let message = Isa::named("sse9").unwrap_err().to_string();
        assert!(message.contains("sse9") && message.contains("scalar"), "{message}");
    }
}
