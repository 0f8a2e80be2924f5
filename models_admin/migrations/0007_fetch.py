from __future__ import annotations

from django.db import migrations, models

STATES = ["queued", "running", "paused", "done", "failed", "cancelled"]


class Migration(migrations.Migration):
    dependencies = [
        ("models_admin", "0006_settings"),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="state",
            field=models.CharField(choices=[(state, state) for state in STATES], default="queued", max_length=16),
        ),
        migrations.AddField(
            model_name="job",
            name="queued_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="fruitless",
            field=models.IntegerField(default=0),
        ),
        migrations.AddField(
            model_name="job",
            name="files",
            field=models.JSONField(blank=True, default=list),
        ),
    ]
