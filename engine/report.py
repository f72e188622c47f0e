"""Results as a table for people."""


def table(results: dict[str, dict], mean: dict | None = None) -> str:
    """One line for each result (see ``results.json``) and, for several splits, their mean."""
    first = next(iter(results.values()))
    views = f"{first['num_clips']} clips x {first['num_crops']} crops{', dense' * first['dense']}"
    lines = [f"{first['weights']}  ({views}, {first['precision']}, {first['fusion']})"]
    width = max(len(name) for name in [*results, "mean"])
    has_half = "half_class" in first
    lines.append(f"{'':{width}}  videos  failed   top1   top5" + "   half-class top1" * has_half)
    for name, result in results.items():
        line = f"{name:{width}}  {result['num_videos']:6d}  {len(result['failed_videos']):6d}"
        line += f"  {result['top1']:5.2f}  {result['top5']:5.2f}"
        if result.get("half_class"):
            line += f"    {result['half_class']['top1_mean']:5.2f} ± {result['half_class']['top1_std']:.2f}"
        lines.append(line)
    if mean:
        lines.append(
            f"{'mean':{width}}  {'':14}  {mean['top1']:5.2f}  {mean['top5']:5.2f}   (std {mean['top1_std']:.2f})"
        )
    failed = [path for result in results.values() for path in result["failed_videos"]]
    if failed:
        lines.append(f"{len(failed)} unreadable videos count as wrong; the first: {', '.join(failed[:3])}")
    return "\n".join(lines) + "\n"
