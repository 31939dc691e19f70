//! Moves an XSAVE area from the layout of one CPU to that of another. Pure.

use crate::image::model::inventory::XsaveLayout;

/// The x87 and SSE part, and the header behind it.
const LEGACY: usize = 512 + 64;

/// XSTATE_BV of an XSAVE area.
#[must_use]
pub fn in_use(area: &[u8]) -> Option<u64> {
    area.get(512..520)?.try_into().ok().map(u64::from_le_bytes)
}

/// `area` in the layout of this host, `size` bytes long as PTRACE_GETREGSET gives it here.
#[must_use]
pub fn convert(area: &[u8], from: &XsaveLayout, to: &XsaveLayout, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    if from == to && area.len() == size {
        out.copy_from_slice(area);
        return out;
    }
    let common = LEGACY.min(area.len()).min(size);
    out[..common].copy_from_slice(&area[..common]);
    for component in &from.components {
        let Some(target) = to.components.iter().find(|target| target.bit == component.bit) else { continue };
        let len = component.size.min(target.size) as usize;
        let (start, end) = (component.offset as usize, target.offset as usize);
        if let (Some(source), Some(place)) = (area.get(start..start + len), out.get_mut(end..end + len)) {
            place.copy_from_slice(source);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::model::inventory::XsaveComponent;

    #[test]
    fn a_component_moves_to_its_new_place() {
        let layout = |offset| XsaveLayout {
            features: 7,
            size: offset + 4,
            components: vec![XsaveComponent { bit: 2, offset, size: 4 }],
        };
        let mut area = vec![0; 580];
        area[0] = 9;
        area[576..].copy_from_slice(&[1, 2, 3, 4]);
        let moved = convert(&area, &layout(576), &layout(832), 836);
        assert_eq!((moved[0], &moved[832..], &moved[576..580]), (9, &[1, 2, 3, 4][..], &[0; 4][..]));
    }
}
